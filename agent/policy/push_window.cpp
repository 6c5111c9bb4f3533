// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/push_window.hpp"

namespace smig {

namespace {

constexpr double kGain = 1.5;
constexpr double kWakeNs = 6e6;
constexpr std::uint64_t kIntervalNs = 20'000'000;
constexpr double kNewShare = 0.5;  // of a new measurement
constexpr double kBelieved = 0.5;

}  // namespace

PushWindow::PushWindow(std::uint64_t rtt_ns, double bytes_per_s)
    : shortest_ns_(rtt_ns), bytes_per_s_(bytes_per_s) {
    set_bytes();
}

void PushWindow::set_bytes() {
    // No time is known yet: a full window would only measure its own queue.
    const double ns = shortest_ns_ == 0 ? 0 : kGain * static_cast<double>(shortest_ns_) + kWakeNs;
    const double product = std::max(bytes_per_s_, kBelieved * seen_bytes_per_s_) * ns / 1e9;
    bytes_ = static_cast<std::uint64_t>(
        std::clamp(product, static_cast<double>(kLeast), static_cast<double>(kMost)));
}

void PushWindow::taken(std::uint64_t bytes, std::uint64_t after_ns, std::uint64_t now_ns) {
    if (shortest_ns_ == 0 || after_ns < shortest_ns_) shortest_ns_ = std::max<std::uint64_t>(after_ns, 1);
    if (since_ns_ == 0) {
        since_ns_ = now_ns;
        return;
    }
    in_interval_ += bytes;
    if (now_ns < since_ns_ + kIntervalNs) return;
    const double measured = static_cast<double>(in_interval_) * 1e9 / static_cast<double>(now_ns - since_ns_);
    bytes_per_s_ = bytes_per_s_ <= 0 ? measured : bytes_per_s_ + kNewShare * (measured - bytes_per_s_);
    since_ns_ = now_ns;
    in_interval_ = 0;
    set_bytes();
}

}  // namespace smig
