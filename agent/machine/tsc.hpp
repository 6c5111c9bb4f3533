// SPDX-License-Identifier: Apache-2.0
// The TSC's rate, measured against the kernel's clock.
#pragma once

#include <cstdint>

namespace smig {

// kHz, against CLOCK_MONOTONIC_RAW; takes a fifth of a second.  Means something only where that clock does
// not itself run by the TSC: there the kernel's own figure, taken in the first moments of the boot, may be
// wrong by far on a busy host, and nothing in the kernel would notice.
std::uint64_t measure_tsc_khz();

}  // namespace smig
