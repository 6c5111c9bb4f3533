// SPDX-License-Identifier: Apache-2.0
// How fast pages may be sent, and how fast they were.  Pure: the time is handed in.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string_view>

#include "agent/base/result.hpp"

namespace smig {

// Bytes a second of "500mbit", "2.5gbit", "20MB", "300KiB", "1000000" (bytes); 0 of "0": no cap.  Error
// (refused): not such a text.
Result<std::uint64_t> parse_rate(std::string_view text);

// A token bucket: on average no more than its rate, and after a pause no more than its burst at once.
class Pacer {
public:
    // `bytes_per_s` 0: no cap.
    Pacer(std::uint64_t bytes_per_s, std::uint64_t burst_bytes)
        : bytes_per_s_(bytes_per_s), burst_bytes_(burst_bytes) {}

    // How long the next bytes must still wait.
    [[nodiscard]] std::uint64_t wait_ns(std::uint64_t now_ns) const {
        return free_at_ns_ > now_ns ? free_at_ns_ - now_ns : 0;
    }
    void sent(std::uint64_t bytes, std::uint64_t now_ns) {
        if (bytes_per_s_ == 0) return;
        const std::uint64_t burst_ns = span_ns(burst_bytes_);
        const std::uint64_t earliest = now_ns > burst_ns ? now_ns - burst_ns : 0;
        free_at_ns_ = std::max(free_at_ns_, earliest) + span_ns(bytes);
    }

private:
    [[nodiscard]] std::uint64_t span_ns(std::uint64_t bytes) const {
        return static_cast<std::uint64_t>(static_cast<double>(bytes) * 1e9 /
                                          static_cast<double>(bytes_per_s_));
    }

    std::uint64_t bytes_per_s_;
    std::uint64_t burst_bytes_;
    std::uint64_t free_at_ns_ = 0;
};

// What the link took lately: what was sent long ago, in bytes, counts ever less.  A socket's buffer takes its
// fill at once, so the past must be longer than that.
class RateMeter {
public:
    void sent(std::uint64_t bytes, std::uint64_t ns) {
        const double kept = std::exp2(-static_cast<double>(bytes) / kHalfBytes);
        bytes_ = bytes_ * kept + static_cast<double>(bytes);
        ns_ = ns_ * kept + static_cast<double>(ns);
    }
    // 0: nothing was measured.
    [[nodiscard]] double bytes_per_s() const { return ns_ > 0 ? bytes_ * 1e9 / ns_ : 0; }

private:
    static constexpr double kHalfBytes = 16 << 20;
    double bytes_ = 0;
    double ns_ = 0;
};

}  // namespace smig
