"""Groups of consensus on whole nodes under random faults: what happens, who calls, what has to hold."""
