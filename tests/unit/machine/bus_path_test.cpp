// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "agent/machine/bus_path.hpp"

using smig::bus_path_of;

TEST_CASE("a device's place is what the wiring decides, not the order of discovery") {
    CHECK(bus_path_of("/sys/devices/pci0000:00/0000:00:04.0/virtio1/block/vda") == "0000:00:04.0");
    CHECK(bus_path_of("/sys/devices/pci0000:00/0000:00:04.0/virtio7/net/eth0") == "0000:00:04.0");
    CHECK(bus_path_of("/sys/devices/pci0000:00/0000:00:03.0/net/enp0s3") == "0000:00:03.0");
    CHECK(bus_path_of("/sys/devices/pci0000:00/0000:00:1e.0/0000:01:01.0/virtio1/net/eth0") ==
          "0000:01:01.0");
}

TEST_CASE("SCSI disks keep channel, target and unit, but not the host's number") {
    CHECK(bus_path_of("/sys/devices/pci0000:00/0000:00:05.0/virtio2/host3/target3:0:1/3:0:1:2/block/sda") ==
          "0000:00:05.0/0:1:2");
    CHECK(bus_path_of("/sys/devices/pci0000:00/0000:00:05.0/virtio2/host0/target0:0:1/0:0:1:2/block/sdb") ==
          "0000:00:05.0/0:1:2");
}

TEST_CASE("NVMe namespaces keep their number, controllers lose theirs") {
    CHECK(bus_path_of("/sys/devices/pci0000:00/0000:00:06.0/nvme/nvme0/nvme0n1") == "0000:00:06.0/n1");
    CHECK(bus_path_of("/sys/devices/pci0000:00/0000:00:06.0/nvme/nvme4/nvme4n2") == "0000:00:06.0/n2");
}

TEST_CASE("devices of other buses have a place too") {
    CHECK(bus_path_of("/sys/devices/pnp0/00:04/virtio0/block/vda") == "pnp0/00:04");
    CHECK(bus_path_of("/sys/devices/vbd-51712/block/xvda") == "vbd-51712");
}

TEST_CASE("what stands on no hardware has no place") {
    CHECK(bus_path_of("/sys/devices/virtual/net/lo").empty());
    CHECK(bus_path_of("/sys/devices/virtual/block/loop0").empty());
    CHECK(bus_path_of("").empty());
    CHECK(bus_path_of("/dev/vda").empty());
}
