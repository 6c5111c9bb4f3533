// SPDX-License-Identifier: Apache-2.0
// What the landing environment is told on the kernel command line.  Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agent/base/result.hpp"
#include "agent/network/address.hpp"

namespace smig {

struct BootNetwork {
    std::string interface;  // name or MAC, as written
    IpAddress address;
    unsigned prefix = 0;
    IpAddress gateway;  // family 0: none
};

struct BootOptions {
    std::vector<BootNetwork> networks;
    std::string listen;  // ADDRESS[:PORT] for `receive`; empty: the first network's address
    bool insecure = false;
    std::vector<std::string> holds;  // PHASE:MS, test aid
    std::vector<std::string> wrong;  // words that are not understood, each with the reason
};

// Words that do not begin with "selfmigrate." are the kernel's.
BootOptions parse_boot_options(std::string_view command_line);

// Arguments after the program's name for the `receive` child.  Error (refused): there is no address to listen
// on.
Result<std::vector<std::string>> receive_arguments(const BootOptions& options);

}  // namespace smig
