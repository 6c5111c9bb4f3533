// SPDX-License-Identifier: Apache-2.0
// What `--mode auto` does and why: how many passes, when to switch, whether pages are left to be fetched
// afterwards, and whether speculation pays.  Pure.
//
// After the first pass the tracker says how much was written meanwhile.  While each pass leaves clearly less
// than the one before, and few of them will do, passes go on: nothing is owed then, and no fault waits.  What
// one leaves is known before it is made, if it is taken to be written as evenly as until now: what is read so
// much sooner before the next, by so much less.  When they do not converge, the guest is stopped at once, and
// what is anonymous of the rest stays owed: the stop does not pay for the guest's dirty rate.
#pragma once

#include <cstdint>
#include <string>

#include "agent/policy/passes.hpp"
#include "agent/policy/speculation.hpp"

namespace smig {

// A PASS but the first, before a page of it is read.
struct AutoSeen {
    std::uint64_t number = 0;
    std::uint64_t pages = 0;           // to be read in it
    std::uint64_t changed_pages = 0;   // of these, read before
    std::uint64_t previous_pages = 0;  // that the pass before had to read
    std::uint64_t exposed_ns = 0;      // PassSeen's
    std::uint64_t runs = 0;            // of neighbouring frames among `pages`
    double page_ns = 0;                // what a page took in the pass before
    double bytes_per_s = 0;            // of the link
    std::uint64_t rtt_ns = 0;
};

struct AutoDecision {
    bool switch_now = false;  // leave the rest owed
    std::string why;          // for a person
};

class AutoPolicy {
public:
    explicit AutoPolicy(const PassLimits& limits) : limits_(limits) {}

    [[nodiscard]] AutoDecision before_pass(const AutoSeen& seen) const;
    // The passes ended by themselves.
    [[nodiscard]] AutoDecision after_passes(smig_wire_stop_reason reason, const PassDecision& decision) const;

private:
    PassLimits limits_;
};

// A hit spares one fault's wait, a page sent in vain delays what comes after it by its own time; with runs of
// r owed pages side by side (r times 100 is given) a neighbour is one with probability (r - 1) / r.
[[nodiscard]] bool speculation_pays(std::uint64_t mean_run_x100, std::uint64_t rtt_ns, double bytes_per_s);
// What remains of it where neighbours are chance.
[[nodiscard]] SpeculationRules only_ppm(const SpeculationRules& rules);

}  // namespace smig
