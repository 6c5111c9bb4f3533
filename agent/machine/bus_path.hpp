// SPDX-License-Identifier: Apache-2.0
// Where a device sits, in words that mean the same on two VMs of one shape.
#pragma once

#include <string>
#include <string_view>

namespace smig {

// From a device's path below /sys/devices ("/sys/devices/pci0000:00/0000:00:04.0/virtio1/block/vda") the part
// that the hardware's wiring decides: "0000:00:04.0".  Numbers that only count discovery (virtio1, host2,
// nvme0) are left out; SCSI channel:target:lun, namespaces and ports stay ("0000:00:05.0/0:1:0").  Empty: not
// below a device (loop, zram, lo).
std::string bus_path_of(std::string_view sysfs_device_path);

// The same for a link in sysfs ("/sys/class/net/eth0", "/sys/block/vda"); empty when it does not exist.
std::string bus_path_of_link(const std::string& link);

}  // namespace smig
