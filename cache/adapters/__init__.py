"""Existing engines behind `Cache`: Redis and Valkey (one server or a cluster), and Olric."""
