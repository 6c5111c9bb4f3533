// SPDX-License-Identifier: Apache-2.0
// Device by /dev/selfmigrate.  The only file that calls ioctl() on it is char_device.cpp.
#pragma once

#include <memory>

#include "agent/device/device.hpp"

namespace smig {

// Opens the device.  Error (refused): the module is not loaded or this is not root; the text says what to do.
Result<std::unique_ptr<Device>> open_char_device();

}  // namespace smig
