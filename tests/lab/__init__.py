# SPDX-License-Identifier: Apache-2.0
"""The lab: boots virtual machines, joins them by a shaped network and watches them from outside.

It knows no test.  What a module does:

    install     Debian packages that are missing
    kernels     installed kernels by series
    build       agent, module and the lab's own programs
    image       the guest image `small`
    accel       KVM if a stock kernel really boots under it
    netns       a network namespace that leaves nothing behind
    network     bridges, taps, shaped links
    qmp         QEMU's control socket
    machine     one virtual machine
    channel     commands and verdicts over virtio-serial
    shell       SSH into the guest, wherever it runs
    observers   the programs that watch from outside
    setup       a source, its client and its targets
    workload    what the guest is busy with, and how it is checked
    frozen      what a given-away source must not do
    stage       one move, staged, watched and judged
    tsc         how fast the host counts time, for emulated guests
    tell        what a person at the terminal sees

Everything runs on one host clock, CLOCK_MONOTONIC, in nanoseconds.
"""
