// SPDX-License-Identifier: Apache-2.0
#include "agent/machine/page_cache.hpp"

#include <fcntl.h>
#include <unistd.h>

#include "agent/base/fd.hpp"

namespace smig {

Result<void> drop_clean_cache() {
    const char* path = "/proc/sys/vm/drop_caches";
    const Fd file(::open(path, O_WRONLY | O_CLOEXEC));
    if (!file || ::write(file.get(), "1", 1) != 1) return errno_error(Remedy::refused, path);
    return {};
}

}  // namespace smig
