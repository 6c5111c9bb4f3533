// SPDX-License-Identifier: Apache-2.0
// What a move would be like, from a few seconds of one that is then called off.  Pure.
//
// Measured is how many of the pages that were sent are written within two times of it; PassPolicy's curve
// through the two points, scaled up from the sent share to all pages in use, says what each pass would leave.
#pragma once

#include <cstdint>

#include "agent/policy/passes.hpp"
#include "common/wire.h"

namespace smig {

struct ForecastSample {
    std::uint64_t in_use_pages = 0;
    std::uint64_t read_pages = 0;  // of these, in took_ns
    std::uint64_t took_ns = 0;
    std::uint64_t payload_bytes = 0;
    std::uint64_t read_ns = 0;
    std::uint64_t early_ns = 0;             // from the first PASS to the second ...
    std::uint64_t early_changed_pages = 0;  // ... so many of the read pages were written
    std::uint64_t late_ns = 0;              // from the first PASS to the third
    std::uint64_t late_changed_pages = 0;
};

struct Forecast {
    std::uint64_t passes = 0;
    std::uint64_t stop_reason = 0;    // smig_wire_stop_reason; 0: there is no forecast
    std::uint64_t first_pass_ms = 0;  // all of the memory once
    std::uint64_t passes_ms = 0;
    std::uint64_t payload_bytes = 0;  // of passes and stop
    std::uint64_t stop_pages = 0;
    std::uint64_t stop_send_ms = 0;  // without what devices and processes take to stop and to go on
    double bytes_per_s = 0;
    double dirty_pages_per_s = 0;
};

// A sample without a page read gives no forecast.
[[nodiscard]] Forecast forecast(const ForecastSample& sample, const PassLimits& limits, double bytes_per_s);

}  // namespace smig
