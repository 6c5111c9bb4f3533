// SPDX-License-Identifier: Apache-2.0
// The module, as the rest of the agent sees it: one function an ioctl of common/uapi/selfmigrate.h.
//
// One Device is one open file.  Destroying it before commit undoes what was begun through it.  Callers fill
// the in fields; `size` and `flags` (where no flag is a parameter) are the implementation's.  Errors name the
// ioctl and, where the module tells, the step that failed.  Remedy: retry (undone, may be tried again),
// refused (a person must act), fatal (anything else).  Thread: any one at a time.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "agent/base/result.hpp"
#include "common/uapi/selfmigrate.h"

namespace smig {

class Device {
public:
    virtual ~Device() = default;

    virtual Result<void> info(smig_info& out) = 0;
    virtual Result<void> status(smig_status& out) = 0;
    virtual Result<void> begin(std::uint32_t role) = 0;
    virtual Result<void> set_flows(smig_flows& flows) = 0;
    // The calling thread is not frozen by a stop.
    virtual Result<void> exempt() = 0;

    virtual Result<void> prepare(smig_prepare& prepare, std::uint32_t flags) = 0;
    virtual Result<void> track(smig_track& track, std::uint32_t flags) = 0;
    // `flags`: of SMIG_PASS_NO_ANON, SMIG_PASS_NO_HOT, SMIG_PASS_UNREAD.
    virtual Result<void> pass(smig_pass& pass, std::uint32_t flags) = 0;
    virtual Result<void> owe(smig_owe& owe) = 0;
    // Returns twice; see the header.  `flags`: of SMIG_CAPTURE_VERIFY, SMIG_CAPTURE_OWE.
    virtual Result<void> capture(smig_capture& capture, std::uint32_t flags) = 0;
    virtual Result<void> read(smig_read& read) = 0;
    // Where READ puts pages when its `data` is 0: SMIG_BUFFER_PAGES pages, as long as the device lives.
    virtual Result<std::span<const std::byte>> map_buffer() = 0;
    virtual Result<void> verify() = 0;
    virtual Result<void> commit() = 0;
    virtual Result<void> thaw() = 0;
    // Fills `pages` with the list from entry `start` on; how many there were.
    virtual Result<std::size_t> owed_list(std::uint64_t start, std::span<smig_owed_page> pages) = 0;

    virtual Result<void> land(smig_land& land) = 0;
    virtual Result<void> vacant(smig_vacant& vacant) = 0;
    virtual Result<void> image(smig_image& image) = 0;
    // `flags`: 0 or SMIG_PLACE_ZERO.
    virtual Result<void> place(smig_place& place, std::uint32_t flags) = 0;
    // Returns only on failure.
    virtual Error jump(smig_jump& jump) = 0;

    // `flags`: 0 or SMIG_RELEASE_FENCES_ONLY.
    virtual Result<void> release(smig_release& release, std::uint32_t flags) = 0;
    // `flags`: SMIG_INSTALL_*.
    virtual Result<void> install(smig_install& install, std::uint32_t flags) = 0;
    // `flags`: 0 or SMIG_OWED_REPEAT.
    virtual Result<void> owed_status(smig_owed_status& status, std::uint32_t flags) = 0;
    // What somebody waits for, without waiting for it; how many.  Readable when fault_fd() is.
    virtual Result<std::size_t> read_faults(std::span<smig_fault> faults) = 0;
    [[nodiscard]] virtual int fault_fd() const = 0;
};

using OpenDevice = std::function<Result<std::unique_ptr<Device>>()>;

// "freeze_tasks"; "none" for 0.  `failed_step` is enum smig_step + 1, as the module gives it.
const char* failed_step_name(std::uint32_t failed_step);
// "freeze_tasks" for SMIG_STEP_FREEZE_TASKS; nullptr beyond SMIG_STEP_NR.
const char* step_name(std::uint32_t step);
// "captured" for SMIG_STATE_CAPTURED.
const char* device_state_name(std::uint32_t state);

}  // namespace smig
