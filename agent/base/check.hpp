// SPDX-License-Identifier: Apache-2.0
// SMIG_CHECK: an assertion about our own code, also in release builds.  Never for input.
#pragma once

#include <cstdio>
#include <cstdlib>

#define SMIG_CHECK(condition)                                                            \
    do {                                                                                 \
        if (!(condition)) [[unlikely]] {                                                 \
            std::fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #condition); \
            std::abort();                                                                \
        }                                                                                \
    } while (false)
