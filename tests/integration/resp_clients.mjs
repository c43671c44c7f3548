// Uses a cluster through one Redis client of Node.js: `node resp_clients.mjs net | ioredis | redis [2 | 3]`.
// PORTS is a JSON list of members' ports, MODULES the folder with what npm installed.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { connect } from "node:net";

const ports = JSON.parse(process.env.PORTS);
const [kind, protocol] = process.argv.slice(2);
const load = createRequire(process.env.MODULES + "/");

async function overNet() {
  const words = (...all) => `*${all.length}\r\n` + all.map((w) => `$${Buffer.byteLength(w)}\r\n${w}\r\n`).join("");
  const exchange = (port, request) =>
    new Promise((resolve, reject) => {
      const socket = connect(port, "127.0.0.1", () => socket.write(request + words("QUIT")));
      let said = "";
      socket.setEncoding("utf8").on("data", (data) => (said += data));
      socket.on("end", () => resolve(said)).on("error", reject);
    });
  const written = await exchange(ports[0], words("SET", "k", "é") + words("INCR", "n") + words("NOPE"));
  assert.equal(written, "+OK\r\n:1\r\n-ERR unknown command 'NOPE', with args beginning with: \r\n+OK\r\n");
  assert.equal(await exchange(ports[1], words("GET", "k")), "$2\r\né\r\n+OK\r\n");
  assert.equal(await exchange(ports[2], "HELLO 3\r\nGET absent\r\n").then((said) => said.slice(-8)), "_\r\n+OK\r\n");
}

async function overIoredis() {
  const Redis = load("ioredis");
  const [one, other] = ports.map((port) => new (Redis.default ?? Redis)({ port, maxRetriesPerRequest: 1 }));
  const names = Array.from({ length: 100 }, (_, number) => `k${number}`);
  assert.equal(await one.set("k", "v", "EX", 100, "NX"), "OK");
  assert.equal(await other.get("k"), "v");
  assert.equal(await other.incrbyfloat("f", 0.1), "0.1");
  const pipe = one.pipeline();
  names.forEach((name) => pipe.set(name, name).get(name));
  assert.deepEqual((await pipe.exec()).filter((_, at) => at % 2).map(([, value]) => value), names);
  const found = [];
  for await (const page of other.scanStream({ match: "k?*", count: 7 })) found.push(...page);
  assert.deepEqual(found.sort(), names.slice().sort());
  await assert.rejects(one.incr("k"), /value is not an integer/);
  await assert.rejects(one.lpush("list", 1), /unknown command 'lpush'/);
  for (const client of [one, other]) await client.quit();
  process.exitCode = 0;
}

async function overNodeRedis() {
  const { createClient } = load("redis");
  const open = (port) => createClient({ socket: { port, host: "127.0.0.1" }, RESP: Number(protocol) }).connect();
  const [one, other] = await Promise.all(ports.slice(0, 2).map(open));
  assert.equal(await one.set("r", "v", { expiration: { type: "EX", value: 100 } }), "OK");
  assert.equal(await other.get("r"), "v");
  assert.equal(await other.ttl("r") > 98, true);
  const counts = await Promise.all(Array.from({ length: 200 }, (_, at) => [one, other][at % 2].incr("c")));
  assert.equal(new Set(counts).size, 200);
  await one.mSet({ x1: "1", x2: "2", x3: "3" });
  assert.deepEqual(await other.mGet(["x1", "absent", "x3"]), ["1", null, "3"]);
  const found = [];
  for await (const page of one.scanIterator({ MATCH: "x*" })) found.push(...page);
  assert.deepEqual(found.sort(), ["x1", "x2", "x3"]);
  await assert.rejects(one.incr("r"), /value is not an integer/);
  await Promise.all([one.close(), other.close()]);
}

await { net: overNet, ioredis: overIoredis, redis: overNodeRedis }[kind]();
console.log(`${kind} ok`);
if (kind === "ioredis") process.exit(0); // The third connection is idle, and keeps the process.
