"""`oblivion-schema verify`: what is in force is compared, what must hold is counted, what must work is tried."""
