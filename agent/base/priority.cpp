// SPDX-License-Identifier: Apache-2.0
#include "agent/base/priority.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <string>

#include "agent/base/fd.hpp"

namespace smig {

namespace {

void write_if_there(const char* path, const std::string& text) {
    if (const Fd file(::open(path, O_WRONLY | O_CLOEXEC)); file) [[maybe_unused]]
        const ssize_t written = ::write(file.get(), text.data(), text.size());
}

}  // namespace

void leave_control_group() {
    write_if_there("/sys/fs/cgroup/cgroup.procs", "0");
}

void set_nice(int nice) {
    (void)::setpriority(PRIO_PROCESS, 0, nice);
    write_if_there("/proc/self/autogroup", std::to_string(nice));
}

}  // namespace smig
