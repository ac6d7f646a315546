"""The simulated world: thousands of production machines in one world, repeatable from one seed.

The other driver: it performs the effects that `run` performs, in virtual time, over a simulated
network and simulated disks. Nothing here may know a real clock, a socket or secret chance.
"""
