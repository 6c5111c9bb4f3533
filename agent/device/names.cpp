// SPDX-License-Identifier: Apache-2.0
#include <iterator>

#include "agent/device/device.hpp"

namespace smig {

namespace {

constexpr const char* kSteps[] = {
    "notify",         "freeze_tasks",  "freeze_kthreads", "fence_disks", "suspend_devices",
    "suspend_noirq",  "cpus_off",      "syscore_suspend", "find",        "copy",
    "jump",           "restore_cpu",   "syscore_resume",  "cpus_on",     "resume_noirq",
    "resume_devices", "thaw_kthreads", "thaw_tasks",
};
static_assert(std::size(kSteps) == SMIG_STEP_NR);

constexpr const char* kStates[] = {"?",      "idle",   "source", "captured", "given",
                                   "target", "landed", "clone",  "owing"};
static_assert(std::size(kStates) == SMIG_STATE_OWING + 1);

}  // namespace

const char* step_name(std::uint32_t step) {
    return step < SMIG_STEP_NR ? kSteps[step] : nullptr;
}

const char* failed_step_name(std::uint32_t failed_step) {
    if (failed_step == 0) return "none";
    const char* name = step_name(failed_step - 1);
    return name != nullptr ? name : "?";
}

const char* device_state_name(std::uint32_t state) {
    return state < std::size(kStates) ? kStates[state] : "?";
}

}  // namespace smig
