// SPDX-License-Identifier: Apache-2.0
// Who owns the guest.  The one place that answers it; common/PROTOCOL.md proves why the answers never
// contradict.
#pragma once

#include <optional>
#include <string_view>

#include "common/wire.h"

namespace smig {

enum class Owner { source, clone };

// Who may run the guest, as far as a side in this state can know.  The source's answer is the truth: it
// changes once, at GIVEN.  The clone's answer lags behind it and never runs ahead of it.
[[nodiscard]] Owner owner_of(smig_session_state state);

// Whether the side in this state may run the guest itself.
[[nodiscard]] bool may_run_guest(smig_session_state state);

enum class Side { source, target, clone };
[[nodiscard]] Side side_of(smig_session_state state);

// "source-sending"; "?" for a number that is no state.
[[nodiscard]] const char* state_name(smig_session_state state);
[[nodiscard]] std::optional<smig_session_state> state_named(std::string_view name);

}  // namespace smig
