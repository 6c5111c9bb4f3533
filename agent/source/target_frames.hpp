// SPDX-License-Identifier: Apache-2.0
// What the target says to the stop process, as events of the source's machine.  Pure.
#pragma once

#include "agent/source/machine.hpp"
#include "agent/wire/frame.hpp"

namespace smig {

// `landed_out` is filled by LANDED: what must stay vacant and the landing environment fit into `ram_pages`.
[[nodiscard]] SourceEvent event_of_target(const Frame& frame, std::uint64_t ram_pages,
                                          smig_wire_landed& landed_out);

}  // namespace smig
