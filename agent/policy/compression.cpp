// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/compression.hpp"

#include <algorithm>

namespace smig {

namespace {

constexpr int kWindow = 8;      // frames
constexpr int kSettling = 2;    // of them: the socket's buffer is still full of the other kind
constexpr int kTryEvery = 128;  // frames: 128 MiB
constexpr int kTrySoon = 8;     // at first; twice as many after each full trial that did not pay
constexpr double kWorthwhile = 0.95;

}  // namespace

std::optional<Compress> compress_named(std::string_view name) {
    if (name == "auto") return Compress::automatic;
    if (name == "on") return Compress::on;
    if (name == "off") return Compress::off;
    return std::nullopt;
}

void CompressionPolicy::restart() {
    plain_cost_.reset();
    packed_cost_.reset();
    refused_cost_.reset();
    try_every_ = kTrySoon;
    since_try_ = try_every_;  // after the first window
    begin_window(false, false);
}

void CompressionPolicy::begin_window(bool packing, bool trying) {
    packing_ = packing;
    trying_ = trying;
    frames_ = 0;
    window_ns_ = window_bytes_ = 0;
}

void CompressionPolicy::sent(std::uint64_t memory_bytes, std::uint64_t pack_ns, std::uint64_t all_ns) {
    if (choice_ != Compress::automatic || memory_bytes == 0) return;
    const auto bytes = static_cast<double>(memory_bytes);
    // No link can make up for this; but the first frame also pays for what is not in any cache yet.
    if (packing_ && trying_ && frames_ > 0 && plain_cost_ &&
        static_cast<double>(pack_ns) / bytes >= *plain_cost_) {
        since_try_ = 0;
        try_every_ = kTryEvery;
        refused_cost_ = static_cast<double>(pack_ns) / bytes;
        return begin_window(false, false);
    }
    if (++frames_ <= kSettling) {
        window_ns_ = 0;
        return;
    }
    ++since_try_;
    window_ns_ += static_cast<double>(all_ns);
    window_bytes_ += bytes;
    if (frames_ == kWindow) end_window();
}

void CompressionPolicy::end_window() {
    (packing_ ? packed_cost_ : plain_cost_) = window_ns_ / window_bytes_;
    if (plain_cost_ && packed_cost_ && trying_) {
        since_try_ = 0;
        const bool pays = *packed_cost_ < kWorthwhile * *plain_cost_;
        try_every_ = pays ? kTryEvery : std::min(try_every_ * 2, kTryEvery);
        return begin_window(pays, false);
    }
    // Empty buffers on the way had made the link look faster than it is.
    const bool misjudged =
        !packing_ && plain_cost_ && refused_cost_ && *refused_cost_ < kWorthwhile * *plain_cost_;
    if (misjudged) refused_cost_.reset();
    const bool try_other = misjudged || since_try_ >= try_every_;
    begin_window(try_other ? !packing_ : packing_, try_other);
}

}  // namespace smig
