// SPDX-License-Identifier: Apache-2.0
// The modes of a move: one engine, and what each does of it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "common/wire.h"

namespace smig {

enum class Mode { precopy, stop_copy, hybrid, hybrid_ns, postcopy, postcopy_i, automatic };

struct ModeTraits {
    const char* name;
    bool passes;      // memory travels while the guest runs
    bool one_pass;    // and the stop follows the first of them
    bool anonymous;   // passes bring anonymous memory as well
    bool owes;        // at the stop what is anonymous and lacking stays on the source, to be fetched
    bool speculates;  // pages go along with one that is asked for, unless another choice is made
    smig_wire_push_order order;
};

[[nodiscard]] const ModeTraits& traits_of(Mode mode);
[[nodiscard]] std::optional<Mode> mode_named(std::string_view name);
// "precopy, stop-copy, ..."
[[nodiscard]] std::string mode_names();

}  // namespace smig
