// SPDX-License-Identifier: Apache-2.0
// Every ioctl against every wrong argument.
#include <doctest/doctest.h>

#include <cstring>

#include "tests/kmod/device.hpp"

namespace {

struct Entry {
    const char* name;
    unsigned long command;
    size_t size;
    bool any_state;
};

constexpr Entry kTable[] = {
    {"INFO", SMIG_IOC_INFO, sizeof(smig_info), true},
    {"STATUS", SMIG_IOC_STATUS, sizeof(smig_status), true},
    {"BEGIN", SMIG_IOC_BEGIN, sizeof(smig_begin), true},
    {"FLOWS", SMIG_IOC_FLOWS, sizeof(smig_flows), false},
    {"EXEMPT", SMIG_IOC_EXEMPT, sizeof(smig_plain), true},
    {"CENSUS", SMIG_IOC_CENSUS, sizeof(smig_census), false},
    {"PREPARE", SMIG_IOC_PREPARE, sizeof(smig_prepare), false},
    {"CAPTURE", SMIG_IOC_CAPTURE, sizeof(smig_capture), false},
    {"READ", SMIG_IOC_READ, sizeof(smig_read), false},
    {"VERIFY", SMIG_IOC_VERIFY, sizeof(smig_plain), false},
    {"COMMIT", SMIG_IOC_COMMIT, sizeof(smig_plain), false},
    {"THAW", SMIG_IOC_THAW, sizeof(smig_plain), false},
    {"TRACK", SMIG_IOC_TRACK, sizeof(smig_track), false},
    {"PASS", SMIG_IOC_PASS, sizeof(smig_pass), false},
    {"OWE", SMIG_IOC_OWE, sizeof(smig_owe), false},
    {"OWED_LIST", SMIG_IOC_OWED_LIST, sizeof(smig_owed_list), false},
    {"INSTALL", SMIG_IOC_INSTALL, sizeof(smig_install), false},
    {"OWED_STATUS", SMIG_IOC_OWED_STATUS, sizeof(smig_owed_status), false},
    {"LAND", SMIG_IOC_LAND, sizeof(smig_land), false},
    {"VACANT", SMIG_IOC_VACANT, sizeof(smig_vacant), false},
    {"IMAGE", SMIG_IOC_IMAGE, sizeof(smig_image), false},
    {"PLACE", SMIG_IOC_PLACE, sizeof(smig_place), false},
    {"JUMP", SMIG_IOC_JUMP, sizeof(smig_jump), false},
    {"RELEASE", SMIG_IOC_RELEASE, sizeof(smig_release), false},
};

std::vector<char> sized(size_t bytes, uint32_t size, char fill = 0) {
    std::vector<char> argument(bytes, fill);
    std::memcpy(argument.data(), &size, 4);
    return argument;
}

}  // namespace

TEST_CASE("a struct shorter than size and flags is EINVAL") {
    Device device;
    for (const Entry& entry : kTable) {
        CAPTURE(entry.name);
        for (uint32_t size : {0u, 1u, 4u, 7u}) {
            auto argument = sized(4096, size);
            CHECK(device.call_raw(entry.command, argument.data()) == EINVAL);
        }
    }
}

TEST_CASE("a longer struct that ends in garbage is E2BIG, and so is one longer than a page") {
    Device device;
    for (const Entry& entry : kTable) {
        CAPTURE(entry.name);
        auto argument = sized(entry.size + 64, static_cast<uint32_t>(entry.size) + 64);
        argument[entry.size + 63] = 1;
        CHECK(device.call_raw(entry.command, argument.data()) == E2BIG);
        auto huge = sized(8192, 8192);
        CHECK(device.call_raw(entry.command, huge.data()) == E2BIG);
    }
}

TEST_CASE("a longer struct that ends in zeros works as the known one") {
    Device device;
    for (const Entry& entry : kTable) {
        if (!entry.any_state || entry.command == SMIG_IOC_BEGIN || entry.command == SMIG_IOC_EXEMPT) continue;
        CAPTURE(entry.name);
        auto argument = sized(entry.size + 64, static_cast<uint32_t>(entry.size) + 64);
        CHECK(device.call_raw(entry.command, argument.data()) == 0);
    }
}

TEST_CASE("an unknown flag is EINVAL") {
    Device device;
    for (const Entry& entry : kTable) {
        if (!entry.any_state) continue;
        CAPTURE(entry.name);
        auto argument = sized(entry.size, static_cast<uint32_t>(entry.size));
        const uint32_t flags = 1u << 30;
        std::memcpy(argument.data() + 4, &flags, 4);
        CHECK(device.call_raw(entry.command, argument.data()) == EINVAL);
    }
}

TEST_CASE("a pointer that points nowhere is EFAULT") {
    Device device;
    for (const Entry& entry : kTable) {
        CAPTURE(entry.name);
        CHECK(device.call_raw(entry.command, nullptr) == EFAULT);
        CHECK(device.call_raw(entry.command, reinterpret_cast<void*>(0xffff800000000000)) == EFAULT);
    }
}

TEST_CASE("a call outside its state is EBADFD and changes nothing") {
    Device device;
    for (const Entry& entry : kTable) {
        if (entry.any_state) continue;
        CAPTURE(entry.name);
        auto argument = sized(entry.size, static_cast<uint32_t>(entry.size));
        CHECK(device.call_raw(entry.command, argument.data()) == EBADFD);
    }
    CHECK(device.state() == SMIG_STATE_IDLE);
}

TEST_CASE("an unknown number is ENOTTY") {
    Device device;
    auto argument = sized(64, 64);
    CHECK(device.call_raw(_IO(SMIG_IOC_TYPE, 0x7f), argument.data()) == ENOTTY);
}

TEST_CASE("INFO describes this machine") {
    Device device;
    const smig_info info = device.info();
    CHECK(info.abi_version == SMIG_ABI_VERSION);
    CHECK((info.page_table_levels == 4 || info.page_table_levels == 5));
    CHECK(info.nr_ranges > 0);
    uint64_t pages = 0;
    for (uint32_t i = 0; i < info.nr_ranges; i++) pages += info.ranges[i].count;
    CHECK(pages == info.ram_pages);
    CHECK(info.free_pages < info.ram_pages);
    CHECK(info.tsc_khz > 0);
}

TEST_CASE("one file at a time owns the move") {
    Device first, second;
    REQUIRE(first.begin(SMIG_ROLE_SOURCE) == 0);
    CHECK(second.begin(SMIG_ROLE_SOURCE) == EBUSY);
    CHECK(second.begin(SMIG_ROLE_TARGET) == EBUSY);
    smig_prepare argument{};
    argument.size = sizeof argument;
    CHECK(second.call(SMIG_IOC_PREPARE, argument) == EBUSY);
    first.release();
    CHECK(second.begin(SMIG_ROLE_TARGET) == 0);
}

TEST_CASE("a process without CAP_SYS_ADMIN cannot use the device, not even an inherited file") {
    Device device;
    const pid_t child = fork();
    if (child == 0) {
        if (setuid(1000)) _exit(9);
        const int fd = open("/dev/selfmigrate", O_RDWR);
        smig_status status{};
        status.size = sizeof status;
        _exit((fd < 0 && device.call(SMIG_IOC_STATUS, status) == EPERM) ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("flows are checked") {
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    smig_flows flows{};
    flows.size = sizeof flows;
    flows.nr_flows = SMIG_MAX_FLOWS + 1;
    CHECK(device.call(SMIG_IOC_FLOWS, flows) == EINVAL);
    flows.nr_flows = 1;
    flows.flows[0].family = 5;
    flows.flows[0].nr_ports = 1;
    CHECK(device.call(SMIG_IOC_FLOWS, flows) == EINVAL);
    flows.flows[0].family = 6;
    flows.flows[0].nr_ports = SMIG_MAX_PORTS + 1;
    CHECK(device.call(SMIG_IOC_FLOWS, flows) == EINVAL);
    flows.flows[0].nr_ports = 0;
    CHECK(device.call(SMIG_IOC_FLOWS, flows) == EINVAL);
    flows.flows[0].nr_ports = 1;
    CHECK(device.call(SMIG_IOC_FLOWS, flows) == 0);
}
