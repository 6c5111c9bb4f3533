// SPDX-License-Identifier: Apache-2.0
// Runs in a guest that has the module loaded.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <sys/mman.h>

#include <cstdio>

int main(int argc, char** argv) {
    // who is killed has said what it was doing
    setvbuf(stdout, nullptr, _IOLBF, 0);
    // CAPTURE wants locked memory; the device's other callers do not mind.
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) return 2;
    doctest::Context context(argc, argv);
    return context.run();
}
