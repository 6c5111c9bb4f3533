// SPDX-License-Identifier: Apache-2.0
// assassin STATE DELAY_MS: kills the owner of the move once the module has been in STATE for DELAY_MS.
//
// It asks to be spared by the freezer, so that it can strike while everything else stands still; locked in
// memory, because then nothing can be paged in.
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "common/uapi/selfmigrate.h"
#include "monotonic.hpp"

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: assassin STATE DELAY_MS\n");
        return 2;
    }
    const auto wanted = static_cast<__u32>(std::atoi(argv[1]));
    const std::int64_t delay = std::atoll(argv[2]) * lab::kMillisecond;
    const int device = open("/dev/" SMIG_DEVICE_NAME, O_RDWR | O_CLOEXEC);
    smig_plain exempt{};
    exempt.size = sizeof exempt;
    if (device < 0 || mlockall(MCL_CURRENT | MCL_FUTURE) != 0 ||
        ioctl(device, SMIG_IOC_EXEMPT, &exempt) != 0) {
        std::perror("assassin");
        return 1;
    }
    for (std::int64_t since = 0;; lab::sleep_until(lab::now_ns() + 5 * lab::kMillisecond)) {
        smig_status status{};
        status.size = sizeof status;
        if (ioctl(device, SMIG_IOC_STATUS, &status) != 0 || status.state != wanted || status.owner_pid == 0) {
            since = 0;
            continue;
        }
        if (since == 0) since = lab::now_ns();
        if (lab::now_ns() - since >= delay)
            return kill(static_cast<pid_t>(status.owner_pid), SIGKILL) == 0 ? 0 : 1;
    }
}
