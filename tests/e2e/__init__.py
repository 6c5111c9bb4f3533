# SPDX-License-Identifier: Apache-2.0
"""End-to-end tests on the lab: real kernels, real moves.  `run` runs them.

    moves      a busy guest moves: kernels, vCPUs, cards, disks; A→B→C
    identity   clocks and timers across a move; two clones of one image
    failures   whatever dies before go, the source's workload goes on and a second move succeeds
    refusals   a wrong target is refused by name, and the guest does not notice
"""
