"""Raft machines on a virtual network and virtual disks: the campaign, and what transcripts run on."""
