// SPDX-License-Identifier: Apache-2.0
// Whether another pass shortens the stop.  Pure.
//
// What must be sent in the stop is what changes until then, each page from when it was read.  Each PASS
// measures a point of the curve "pages changed within a time": so many since the pass before read them, which
// it did one after another, half its duration before its end in the mean.  The curve rises ever more slowly,
// for pages that are written again and again count once: between a hot set (a constant, exponent 0) and
// writes all over the memory (a line, exponent 1) it is close to a power of the time, and two passes of
// different length give the exponent. Before there are two, the set is taken as constant, which promises too
// little rather than too much.  At the end of a pass its own pages were read half its duration ago.
//
// What a page costs in the stop is what it cost in the pass before: time to read it, and bytes on the link
// after those that turned out to be the same, all-zero or packed.
#pragma once

#include <cstdint>
#include <optional>

#include "common/wire.h"

namespace smig {

struct PassLimits {
    std::uint64_t max_passes = 30;
    std::uint64_t downtime_limit_ms = 300;  // for sending what is left
    std::uint64_t fixed_stop_ms = 0;        // what the stop takes besides, for the forecast; 0: not known
};

// One pass, when its last page has been read.
struct PassSeen {
    std::uint64_t number = 0;         // 1, 2, ...
    std::uint64_t pages = 0;          // what PASS said is to be read
    std::uint64_t changed_pages = 0;  // of these, read before
    // In the mean, from the pass before reading a page to this PASS; 0 in the first.
    std::uint64_t exposed_ns = 0;
    std::uint64_t took_ns = 0;        // from its PASS to its last page
    std::uint64_t payload_bytes = 0;  // of its frames
    std::uint64_t read_ns = 0;        // of took_ns, in READ
};

// How long ago a pass that took so long read its pages, in the mean, when `since_ns` have gone by since its
// PASS.
[[nodiscard]] std::uint64_t mean_exposure_ns(std::uint64_t since_ns, std::uint64_t took_ns);

// Pages and when they were read, one after another.
struct ReadSpan {
    std::uint64_t begun_ns = 0;
    std::uint64_t ended_ns = 0;
    std::uint64_t pages = 0;
};

// The same of what has changed since.  The last part of a pass is of what is written most, so that as much of
// it is from there as that had pages.
[[nodiscard]] std::uint64_t mean_exposure_ns(const ReadSpan& pass, const ReadSpan& last_part,
                                             std::uint64_t changed_pages, std::uint64_t now_ns);

struct PassDecision {
    std::optional<smig_wire_stop_reason> stop;  // none: another pass
    std::uint64_t expected_pages = 0;           // that a stop now would have to send
    std::uint64_t expected_stop_ms = 0;         // sending them, and the fixed cost
    double dirty_pages_per_s = 0;
};

class PassPolicy {
public:
    explicit PassPolicy(const PassLimits& limits) : limits_(limits) {}

    // `bytes_per_s`: what the link takes; 0: not known.
    [[nodiscard]] PassDecision after(const PassSeen& pass, double bytes_per_s);

private:
    [[nodiscard]] double expect_pages(const PassSeen& pass);

    PassLimits limits_;
    std::optional<PassSeen> point_;  // the last pass but the first: what it found, after how long
    double exponent_ = 0;
    std::optional<double> previous_expected_;
    int without_gain_ = 0;
};

// "within-limit" for SMIG_STOP_WITHIN_LIMIT; "none" for what is no reason.
[[nodiscard]] const char* stop_reason_name(std::uint64_t reason);

}  // namespace smig
