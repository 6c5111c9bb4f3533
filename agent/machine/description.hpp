// SPDX-License-Identifier: Apache-2.0
// What a machine is, as JSON text, and every reason why a guest cannot move to another one.
//
// The description travels in DESCRIBE and stays below SMIG_WIRE_MAX_TEXT.  describe_machine() reads sysfs,
// procfs and CPUID; compare_machines() is pure and takes both texts as hostile.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agent/base/result.hpp"
#include "common/uapi/selfmigrate.h"

namespace smig {

// This machine, both as a source (drivers in use, mounts, swaps, what cannot suspend) and as a target. `info`
// is what the module says of the kernel.  Error (refused): sysfs or procfs is not mounted.
Result<std::string> describe_machine(const smig_info& info);

// Every reason why the guest of `source_json` cannot run on `target_json`, each a sentence for a person that
// names the thing; empty: nothing speaks against it.  A text that does not parse, lacks a field or
// contradicts itself is a reason, never an exception.  At most kMaxReasons, each at most some hundred
// characters.
std::vector<std::string> compare_machines(std::string_view source_json, std::string_view target_json);
inline constexpr std::size_t kMaxReasons = 64;

}  // namespace smig
