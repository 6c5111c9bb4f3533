// SPDX-License-Identifier: Apache-2.0
// Whether packing the next pages shortens their way.  Pure.
//
// Compared is what is wanted: the time that a byte of memory takes on its way out, plain (the link's) against
// packed (packing it, and the link's for what is left of it).  Both are measured, in windows of some frames:
// how much of the packing overlaps with the emptying of the socket's buffer is in the measured time already.
// Now and then the other way is tried again, for contents and links change.  On a fast link packing alone
// takes longer than sending; two frames show that, so trying costs next to nothing there.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace smig {

enum class Compress { automatic, on, off };

// "auto", "on", "off".
[[nodiscard]] std::optional<Compress> compress_named(std::string_view name);

class CompressionPolicy {
public:
    explicit CompressionPolicy(Compress choice) : choice_(choice) { restart(); }

    // For the next frame of pages.
    [[nodiscard]] bool pack_next() const { return choice_ == Compress::on || packing_; }
    // A frame was sent as pack_next() said: `pack_ns` of `all_ns` went into packing.
    void sent(std::uint64_t memory_bytes, std::uint64_t pack_ns, std::uint64_t all_ns);
    // It had to wait so long for the pacer afterwards.
    void waited(std::uint64_t ns) { window_ns_ += static_cast<double>(ns); }
    // Nothing of what was measured holds any more: another rate is allowed now.
    void restart();

private:
    void end_window();
    void begin_window(bool packing, bool trying);

    Compress choice_;
    bool packing_ = false;
    bool trying_ = false;  // the other way, for one window
    int frames_ = 0;       // of this window
    int since_try_ = 0;    // frames
    int try_every_ = 0;    // frames
    double window_ns_ = 0;
    double window_bytes_ = 0;
    std::optional<double> plain_cost_;  // nanoseconds a byte of memory
    std::optional<double> packed_cost_;
    std::optional<double> refused_cost_;  // of packing alone, which was dearer than the link
};

}  // namespace smig
