// SPDX-License-Identifier: Apache-2.0
// Makes the landing image: this very binary with its libraries as /init, the kernel's drivers,
// selfmigrate.ko.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "agent/base/result.hpp"

namespace smig {

struct ImageOptions {
    std::string output;
    std::string own_module;  // path of selfmigrate.ko; empty: find_own_module()
    std::string release;     // kernel of the target; empty: the running one
    std::string tree;        // its modules; empty: /lib/modules/RELEASE
};

struct ImageSummary {
    std::uint64_t bytes = 0;
    std::string release;
    std::string own_module;
    std::vector<std::string> libraries;  // paths inside the image
    std::vector<std::string> modules;    // names, in load order
    std::vector<std::string> left_out;   // loaded here, but not in the module tree
};

// Writes the image whole or not at all (FILE.tmp, fsync, rename).  The same machine state gives the same
// bytes.  Error (refused): the text says what to install or to name.
Result<ImageSummary> make_image(const ImageOptions& options);

}  // namespace smig
