// SPDX-License-Identifier: Apache-2.0
#include "agent/base/power.hpp"

#include <fcntl.h>
#include <linux/reboot.h>
#include <sys/reboot.h>
#include <unistd.h>

namespace smig {

namespace {

void put(int fd, char letter) {
    // A failure leaves nothing better to do: the callers try the next way.
    if (fd >= 0 && ::pwrite(fd, &letter, 1, 0) < 0) return;
}

}  // namespace

MachinePower::MachinePower()
    : panic_(::open("/proc/sys/kernel/panic", O_WRONLY | O_CLOEXEC)),
      sysrq_(::open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC)) {}

MachinePower::~MachinePower() {
    if (panic_ >= 0) ::close(panic_);
    if (sysrq_ >= 0) ::close(sysrq_);
}

void MachinePower::forbid_restart() {
    put(panic_, '0');
    ::reboot(RB_DISABLE_CAD);
}

void MachinePower::off() {
    ::reboot(RB_POWER_OFF);
    put(sysrq_, 'o');
}

void MachinePower::reset() {
    put(sysrq_, 'b');
    ::reboot(RB_AUTOBOOT);
}

}  // namespace smig
