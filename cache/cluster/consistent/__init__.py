"""Structures that stay consistent whatever fails, replicated by Raft."""
