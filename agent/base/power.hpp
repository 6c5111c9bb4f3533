// SPDX-License-Identifier: Apache-2.0
// What only root does to a whole machine.  Behind an interface, so that tests can watch.
#pragma once

namespace smig {

class Power {
public:
    virtual ~Power() = default;
    // From here no panic and no key restarts this machine by itself: its disk belongs to another one.
    virtual void forbid_restart() = 0;
    // Powers off without syncing anything.  Returns only if the kernel refused.
    virtual void off() = 0;
    // Restarts at once: no sync, no shutdown of devices.  Returns only if the kernel refused.
    virtual void reset() = 0;
};

// The real one.  Opens what it needs when constructed, so that later calls touch no file system.
class MachinePower final : public Power {
public:
    MachinePower();
    ~MachinePower() override;
    MachinePower(const MachinePower&) = delete;
    MachinePower& operator=(const MachinePower&) = delete;
    void forbid_restart() override;
    void off() override;
    void reset() override;

private:
    int panic_ = -1;
    int sysrq_ = -1;
};

}  // namespace smig
