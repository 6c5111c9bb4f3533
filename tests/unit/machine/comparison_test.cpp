// SPDX-License-Identifier: Apache-2.0
// compare_machines(): every reason to refuse, by name.
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/machine/description.hpp"

using namespace smig;
using nlohmann::json;

namespace {

json machine() {
    return json::parse(R"({
        "format": 1,
        "kernel": {"release": "6.1.0-1-amd64", "version": "#1 SMP", "build_id": "aa"},
        "module": {"abi": 1, "source_id": "m1"},
        "memory": {"page_table_levels": 4, "pages": 131072, "ranges": [[1, 158], [256, 130784]]},
        "firmware": "BIOS",
        "vcpus": 2,
        "cpu": {"vendor": "AuthenticAMD", "hypervisor": "TCGTCGTCGTCG", "xcr0": 231,
                "leaves": {"1.0": [1, 2, 3, 4], "7.0": [0, 65536, 0, 0], "80000008.0": [40, 0, 0, 0],
                           "d.0": [231, 0, 0, 0], "d.1": [15, 0, 0, 0], "d.2": [256, 576, 0, 0], "d.5": [64, 1088, 0, 0],
                           "d.6": [512, 1152, 0, 0], "d.7": [1024, 1664, 0, 0], "a.0": [1794, 0, 0, 0]}},
        "clock": {"source": "tsc", "tsc_khz": 2000000, "available": ["tsc", "hpet", "acpi_pm"]},
        "pci": [{"address": "0000:00:05.0", "vendor": "1af4", "device": "1000", "class": "020000", "subsystem": "1af4:0001",
                 "driver": "virtio-pci", "bars": [32, 4096, 0, 0, 16384, 0], "virtio_features": "1100"}],
        "disks": [{"name": "vda", "path": "0000:00:06.0", "id": "serial:x", "bytes": 1048576, "block_bytes": 512,
                   "read_only": false, "swap": false, "mounts": []}],
        "nics": [{"name": "eth0", "path": "0000:00:05.0", "mac": "52:54:00:00:00:01"}],
        "cannot_suspend": []
    })");
}

using Change = std::function<void(json& target)>;

// The only reason against a target that differs from the source in one thing.
std::string reason_against(const Change& change) {
    json target = machine();
    change(target);
    const auto reasons = compare_machines(machine().dump(), target.dump());
    REQUIRE(reasons.size() == 1);
    return reasons.front();
}

bool says(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a machine accepts itself") {
    CHECK(compare_machines(machine().dump(), machine().dump()).empty());
}

TEST_CASE("a machine that has more of everything is accepted") {
    json target = machine();
    target["memory"]["ranges"] = json::parse("[[0, 100], [90, 200], [250, 130790]]");
    target["cpu"]["leaves"]["7.0"] = json::parse("[0, 4294967295, 4294967295, 4294967295]");
    target["cpu"]["leaves"]["80000008.0"] = json::parse("[48, 0, 0, 0]");
    target["cpu"]["leaves"]["a.0"] = json::parse("[1797, 0, 0, 0]");
    target["clock"]["tsc_khz"] = 2000900;
    target["clock"]["source"] = "hpet";
    target["pci"].push_back({{"address", "0000:00:09.0"}, {"vendor", "1234"}});
    target["pci"][0]["virtio_features"] = "1111";
    target["pci"][0]["driver"] = "";
    target["disks"].push_back({{"name", "vdb"}, {"path", "0000:00:09.0"}});
    target["nics"][0]["mac"] = "52:54:00:00:00:02";
    const auto reasons = compare_machines(machine().dump(), target.dump());
    CHECK_MESSAGE(reasons.empty(), (reasons.empty() ? "" : reasons.front()));
}

TEST_CASE("each difference is refused by name") {
    struct Row {
        const char* name;
        Change change;
        std::vector<const char*> words;
    };
    const std::vector<Row> rows = {
        {"release",
         [](json& t) { t["kernel"]["release"] = "6.12.1"; },
         {"the target's kernel is 6.12.1, the guest's is 6.1.0-1-amd64", "selfmigrate landing-image"}},
        {"version", [](json& t) { t["kernel"]["version"] = "#2 SMP"; }, {"another build", "#2 SMP"}},
        {"build id", [](json& t) { t["kernel"]["build_id"] = "bb"; }, {"build id bb"}},
        {"ABI", [](json& t) { t["module"]["abi"] = 2; }, {"selfmigrate.ko has ABI 2"}},
        {"module build",
         [](json& t) { t["module"]["source_id"] = "m2"; },
         {"selfmigrate.ko is another build"}},
        {"firmware", [](json& t) { t["firmware"] = "EFI"; }, {"started by EFI"}},
        {"levels", [](json& t) { t["memory"]["page_table_levels"] = 5; }, {"4-level", "5-level", "no5lvl"}},
        {"less memory",
         [](json& t) { t["memory"]["ranges"] = json::parse("[[1, 158], [256, 100000]]"); },
         {"30784 pages", "121 MiB", "0x100000-"}},
        {"more memory",
         [](json& t) { t["memory"]["ranges"] = json::parse("[[1, 158], [256, 261856]]"); },
         {"ends at 0x3ffe0000, the guest's at 0x1ffe0000", "as much memory"}},
        {"a hole in the memory",
         [](json& t) { t["memory"]["ranges"] = json::parse("[[1, 158], [256, 10], [267, 130773]]"); },
         {"1 pages"}},
        {"fewer vCPUs", [](json& t) { t["vcpus"] = 1; }, {"the target has 1 vCPUs, the guest 2"}},
        {"more vCPUs", [](json& t) { t["vcpus"] = 4; }, {"the target has 4 vCPUs, the guest 2"}},
        {"CPU vendor",
         [](json& t) { t["cpu"]["vendor"] = "GenuineIntel"; },
         {"GenuineIntel", "AuthenticAMD"}},
        {"CPU feature",
         [](json& t) { t["cpu"]["leaves"]["7.0"] = json::parse("[0, 0, 0, 0]"); },
         {"CPU feature avx512f is missing on the target"}},
        {"CPU register states",
         [](json& t) { t["cpu"]["leaves"]["d.0"] = json::parse("[7, 0, 0, 0]"); },
         {"0xe0"}},
        {"place of a register state",
         [](json& t) { t["cpu"]["leaves"]["d.2"] = json::parse("[256, 832, 0, 0]"); },
         {"register state 2", "832"}},
        {"address bits",
         [](json& t) { t["cpu"]["leaves"]["80000008.0"] = json::parse("[39, 0, 0, 0]"); },
         {"39 physical address bits"}},
        {"performance counters",
         [](json& t) { t["cpu"]["leaves"]["a.0"] = json::parse("[0, 0, 0, 0]"); },
         {"performance counters"}},
        {"TSC rate",
         [](json& t) { t["clock"]["tsc_khz"] = 2002000; },
         {"2002000 kHz", "2000000 kHz", "0.100 %"}},
        {"no TSC", [](json& t) { t["clock"]["tsc_khz"] = 0; }, {"TSC"}},
        {"missing PCI device",
         [](json& t) { t["pci"] = json::array(); },
         {"PCI device 0000:00:05.0 (1af4:1000), driver virtio-pci, is missing"}},
        {"other PCI device",
         [](json& t) { t["pci"][0]["device"] = "1041"; },
         {"0000:00:05.0", "another device", "1af4:1041"}},
        {"PCI subsystem", [](json& t) { t["pci"][0]["subsystem"] = "1af4:0002"; }, {"subsystem 1af4:0002"}},
        {"PCI windows",
         [](json& t) { t["pci"][0]["bars"][1] = 8192; },
         {"0000:00:05.0", "windows of other lengths"}},
        {"virtio feature",
         [](json& t) { t["pci"][0]["virtio_features"] = "1000"; },
         {"0000:00:05.0", "feature bit 1"}},
        {"missing disk",
         [](json& t) { t["disks"] = json::array(); },
         {"disk vda (serial:x at 0000:00:06.0) is not there"}},
        {"other disk",
         [](json& t) { t["disks"][0]["id"] = "serial:y"; },
         {"disk vda", "another disk", "serial:y"}},
        {"disk without serial", [](json& t) { t["disks"][0]["id"] = ""; }, {"another disk", "no serial"}},
        {"disk size", [](json& t) { t["disks"][0]["bytes"] = 2097152; }, {"disk vda", "2097152 bytes"}},
        {"disk blocks", [](json& t) { t["disks"][0]["block_bytes"] = 4096; }, {"blocks of 4096 bytes"}},
        {"read-only disk", [](json& t) { t["disks"][0]["read_only"] = true; }, {"disk vda", "read-only"}},
        {"missing NIC",
         [](json& t) { t["nics"] = json::array(); },
         {"network interface eth0 (at 0000:00:05.0)"}},
        {"target's obstacle",
         [](json& t) { t["cannot_suspend"].push_back("thing"); },
         {"on the target: thing"}},
        {"format", [](json& t) { t["format"] = 2; }, {"different versions"}},
    };
    for (const Row& row : rows) {
        CAPTURE(row.name);
        const std::string reason = reason_against(row.change);
        for (const char* word : row.words) CHECK_MESSAGE(says(reason, word), reason);
    }
}

TEST_CASE("what cannot suspend in the guest is refused") {
    json source = machine();
    source["cannot_suspend"].push_back("device virtio5 (driver virtio_mem) cannot suspend");
    const auto reasons = compare_machines(source.dump(), machine().dump());
    REQUIRE(reasons.size() == 1);
    CHECK(says(reasons.front(), "virtio_mem"));
}

TEST_CASE("a clocksource other than the TSC must be on the target, and tolerates more of the TSC") {
    json source = machine();
    source["clock"]["source"] = "hpet";
    json target = machine();
    target["clock"]["tsc_khz"] = 2010000;
    CHECK(compare_machines(source.dump(), target.dump()).empty());
    target["clock"]["available"] = json::array({"tsc"});
    const auto reasons = compare_machines(source.dump(), target.dump());
    REQUIRE(reasons.size() == 1);
    CHECK(says(reasons.front(), "hpet"));
}

TEST_CASE("a paravirtual guest needs the same hypervisor with the same features") {
    json source = machine();
    source["cpu"]["hypervisor"] = "KVMKVMKVM";
    source["cpu"]["leaves"]["40000001.0"] = json::parse("[3, 0, 0, 0]");
    auto reasons = compare_machines(source.dump(), machine().dump());
    REQUIRE(reasons.size() == 1);
    CHECK(says(reasons.front(), "KVMKVMKVM"));
    json target = source;
    CHECK(compare_machines(source.dump(), target.dump()).empty());
    target["cpu"]["leaves"]["40000001.0"] = json::parse("[1, 0, 0, 0]");
    reasons = compare_machines(source.dump(), target.dump());
    REQUIRE(reasons.size() == 1);
    CHECK(says(reasons.front(), "0x2"));
}

TEST_CASE("a landing environment without the virtio driver has negotiated nothing, and that is no reason") {
    json target = machine();
    target["pci"][0].erase("virtio_features");
    CHECK(compare_machines(machine().dump(), target.dump()).empty());
}

TEST_CASE("hostile descriptions are reasons, never exceptions") {
    const std::string good = machine().dump();
    for (const std::string& bad :
         {std::string(), std::string("null"), std::string("[]"), std::string("{"), std::string("{}"),
          std::string(300'000, 'x'), std::string("{\"format\":1}"), std::string("\xff\xfe"),
          std::string(100'000, '[')}) {
        CHECK_FALSE(compare_machines(good, bad).empty());
        CHECK_FALSE(compare_machines(bad, good).empty());
    }
    // Every field in turn becomes something else.
    const std::vector<json> others = {nullptr,
                                      true,
                                      -1,
                                      1.5,
                                      18446744073709551615ull,
                                      "text",
                                      json::array({json::object()}),
                                      json::object({{"x", json::array()}})};
    const json whole = machine();
    for (const auto& [key, value] : whole.items()) {
        for (const json& other : others) {
            json changed = whole;
            changed[key] = other;
            compare_machines(good, changed.dump());
            compare_machines(changed.dump(), good);
            if (!value.is_object()) continue;
            for (const auto& [inner, unused] : value.items()) {
                json deeper = whole;
                deeper[key][inner] = other;
                compare_machines(good, deeper.dump());
                compare_machines(deeper.dump(), good);
            }
        }
    }
}

TEST_CASE("hostile memory ranges neither overflow nor cover") {
    json target = machine();
    target["memory"]["ranges"] = json::parse("[[0, 18446744073709551615]]");
    CHECK_FALSE(compare_machines(machine().dump(), target.dump()).empty());
    target["memory"]["ranges"] = json::parse("[[18446744073709551615, 2], [1, 158]]");
    CHECK_FALSE(compare_machines(machine().dump(), target.dump()).empty());
    json source = machine();
    source["memory"]["ranges"] = json::array();
    CHECK_FALSE(compare_machines(source.dump(), machine().dump()).empty());
}

TEST_CASE("a person sees a bounded list of harmless text") {
    json source = machine();
    for (int i = 0; i < 200; ++i) {
        source["pci"].push_back(
            {{"address", "x\n\x1b[31m" + std::string(1000, 'y') + std::to_string(i)}, {"vendor", "v"}});
    }
    const auto reasons = compare_machines(source.dump(), machine().dump());
    REQUIRE(reasons.size() == kMaxReasons);
    CHECK(says(reasons.back(), "and 137 more"));
    for (const std::string& reason : reasons) {
        CHECK(reason.size() < 500);
        CHECK(std::all_of(reason.begin(), reason.end(), [](char c) { return c >= ' ' && c <= '~'; }));
    }
}
