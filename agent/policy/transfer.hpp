// SPDX-License-Identifier: Apache-2.0
// How memory travels, as a person chose it.
#pragma once

#include <cstdint>

#include <optional>

#include "agent/policy/compression.hpp"
#include "agent/policy/mode.hpp"
#include "agent/policy/passes.hpp"
#include "agent/policy/speculation.hpp"

namespace smig {

struct TransferOptions {
    Mode mode = Mode::automatic;
    std::optional<SpeculationRules> speculation;  // none: the mode's own
    PassLimits passes;
    std::int64_t push_after_ms = 0;           // test aid: owed pages that nobody asked for wait so long
    std::uint64_t bandwidth_bytes_per_s = 0;  // of the passes; 0: no cap
    int nice = -10;                           // of what sends them
    Compress compress = Compress::automatic;
    bool verify = false;  // the stop hashes what it believes unchanged
    bool hash = false;  // no page table is asked what has changed: every pass reads all, the stop hashes all
    bool drop_cache = false;  // clean page cache is given back first: it is read from the disk again
    bool explain = false;     // say why automatic did what it did
    bool dry_run = false;     // a few seconds of the first pass, then a forecast, and nothing has happened
};

}  // namespace smig
