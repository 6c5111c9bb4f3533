// SPDX-License-Identifier: Apache-2.0
// A test aid: a side waits for a while when it enters a named state, so that a test can hit it there.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "agent/base/result.hpp"
#include "common/wire.h"

namespace smig {

struct Hold {
    smig_session_state state{};
    std::int64_t ms = 0;
};

// "source-sending:5000".  Error (refused): not such a text; it lists the names.
Result<Hold> parse_hold(std::string_view text);

class Holds {
public:
    Holds() = default;
    explicit Holds(std::vector<Hold> holds) : holds_(std::move(holds)) {}
    // How long to wait on entering `state`; 0: not at all.
    [[nodiscard]] std::int64_t ms_in(smig_session_state state) const;

private:
    std::vector<Hold> holds_;
};

}  // namespace smig
