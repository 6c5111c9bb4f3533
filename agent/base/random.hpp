// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/random.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>

#include "agent/base/check.hpp"

namespace smig {

// Fresh bytes of the kernel's generator.
inline void fill_random(std::span<std::uint8_t> out) {
    std::size_t done = 0;
    while (done < out.size()) {
        const ssize_t count = ::getrandom(out.data() + done, out.size() - done, 0);
        if (count < 0) {
            SMIG_CHECK(errno == EINTR);
            continue;
        }
        done += static_cast<std::size_t>(count);
    }
}

}  // namespace smig
