// SPDX-License-Identifier: Apache-2.0
#include "agent/machine/cpu_features.hpp"

#include <cpuid.h>
#include <fmt/format.h>

#include <bit>
#include <string_view>

namespace smig {

namespace {

using Registers = CpuFeatures::Registers;
using LeafKey = CpuFeatures::LeafKey;

constexpr std::uint32_t kXsaveLeaf = 0xd;
constexpr std::uint32_t kPerfLeaf = 0xa;
constexpr std::uint32_t kHypervisorLeaf = 0x40000000;
constexpr unsigned kFirstExtendedComponent = 2;  // x87 and SSE have fixed places
constexpr unsigned kXsaveComponents = 63;

constexpr std::array<std::string_view, 4> kRegisterNames{"EAX", "EBX", "ECX", "EDX"};

// One register of feature bits: a kernel that saw a bit set may rely on it for ever.
struct FeatureWord {
    LeafKey leaf;
    unsigned index;  // into Registers
    std::uint32_t
        ignored;  // bits that say nothing a kernel relies on (topology, deprecations, set by the OS)
    std::string_view names;  // 32 words from bit 0 on, "-" without a name
};

constexpr std::uint32_t bit(unsigned n) {
    return 1u << n;
}

constexpr std::array kFeatureWords{
    FeatureWord{
        {1, 0},
        3,
        bit(28),
        "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx "
        "fxsr sse sse2 ss ht tm ia64 pbe"},
    FeatureWord{
        {1, 0},
        2,
        bit(27) | bit(31),
        "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca "
        "sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c rdrand hypervisor"},
    FeatureWord{{6, 0},
                0,
                0,
                "dtherm ida arat - pln - pts hwp hwp_notify hwp_act_window hwp_epp hwp_pkg_req - - - - - - - "
                "hfi - - - "
                "- - - - - - - - -"},
    FeatureWord{
        {7, 0},
        1,
        bit(6) | bit(13),
        "fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep bmi2 erms invpcid rtm cqm zero_fcs_fds "
        "mpx "
        "rdt_a avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er "
        "avx512cd sha_ni avx512bw avx512vl"},
    FeatureWord{
        {7, 0},
        2,
        bit(4),
        "prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq avx512_vnni "
        "avx512_bitalg tme avx512_vpopcntdq - la57 - - - - - rdpid - bus_lock_detect cldemote - movdiri "
        "movdir64b enqcmd sgx_lc pks"},
    FeatureWord{{7, 0},
                3,
                bit(11),
                "- - avx512_4vnniw avx512_4fmaps fsrm - - - avx512_vp2intersect srbds_ctrl md_clear "
                "rtm_always_abort - "
                "tsx_force_abort serialize hybrid_cpu tsxldtrk - pconfig arch_lbr ibt - amx_bf16 avx512_fp16 "
                "amx_tile "
                "amx_int8 ibrs stibp flush_l1d arch_capabilities core_capabilities ssbd"},
    FeatureWord{{7, 1},
                0,
                0,
                "- - - - avx_vnni avx512_bf16 lass cmpccxadd arch_perfmon_ext - fzrm fsrs fsrc - - - - fred "
                "lkgs wrmsrns "
                "- amx_fp16 - avx_ifma - - lam - - - - -"},
    FeatureWord{{7, 2},
                3,
                0,
                "psfd ipred_ctrl rrsba_ctrl ddpd_u bhi_ctrl mcdt_no - - - - - - - - - - - - - - - - - - - - "
                "- - - - - -"},
    FeatureWord{{kXsaveLeaf, 1},
                0,
                0,
                "xsaveopt xsavec xgetbv1 xsaves xfd - - - - - - - - - - - - - - - - - - - - - - - - - - -"},
    FeatureWord{
        {0x80000001, 0},
        3,
        0,
        "fpu vme de pse tsc msr pae mce cx8 apic - syscall mtrr pge mca cmov pat pse36 - mp nx - mmxext mmx "
        "fxsr fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow"},
    FeatureWord{{0x80000001, 0},
                2,
                bit(1),
                "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop "
                "skinit wdt - "
                "lwp fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc "
                "mwaitx - -"},
    FeatureWord{{0x80000007, 0},
                3,
                0,
                "- - - - - - - hw_pstate constant_tsc cpb - - - rapl - - - - - - - - - - - - - - - - - -"},
    FeatureWord{
        {0x80000008, 0},
        1,
        0,
        "clzero irperf xsaveerptr - rdpru - - - - wbnoinvd - - amd_ibpb - amd_ibrs amd_stibp - "
        "amd_stibp_always_on - - - - - amd_ppin amd_ssbd virt_ssbd amd_ssb_no cppc amd_psfd btc_no - -"},
};

std::string_view word(std::string_view words, unsigned index) {
    for (; index > 0; --index) words.remove_prefix(words.find(' ') + 1);
    return words.substr(0, words.find(' '));
}

constexpr bool all_bits_have_a_word() {
    for (const FeatureWord& feature : kFeatureWords) {
        unsigned words = 1;
        for (const char c : feature.names) words += c == ' ' ? 1 : 0;
        if (words != 32) return false;
    }
    return true;
}
static_assert(all_bits_have_a_word());

Registers leaf_of(const CpuFeatures& cpu, LeafKey key) {
    const auto found = cpu.leaves.find(key);
    return found == cpu.leaves.end() ? Registers{} : found->second;
}

std::string feature_name(const FeatureWord& feature, unsigned index) {
    const std::string_view name = word(feature.names, index);
    if (name != "-") return std::string(name);
    return fmt::format("CPUID {:#x}.{} {} bit {}", feature.leaf.first, feature.leaf.second,
                       kRegisterNames.at(feature.index), index);
}

std::uint64_t read_xcr0() {
    std::uint32_t low = 0;
    std::uint32_t high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (std::uint64_t{high} << 32) | low;
}

std::uint64_t joined(std::uint32_t high, std::uint32_t low) {
    return (std::uint64_t{high} << 32) | low;
}

void compare_xsave(const CpuFeatures& source, const CpuFeatures& target, std::vector<std::string>& reasons) {
    const Registers offered = leaf_of(target, {kXsaveLeaf, 0});
    const std::uint64_t missing = source.xcr0 & ~joined(offered[3], offered[0]);
    if (missing != 0) {
        reasons.push_back(fmt::format(
            "the target's CPU lacks the register states {:#x} (XCR0) that the guest uses", missing));
    }
    const Registers source_compact = leaf_of(source, {kXsaveLeaf, 1});
    const Registers target_compact = leaf_of(target, {kXsaveLeaf, 1});
    const std::uint64_t missing_xss =
        joined(source_compact[3], source_compact[2]) & ~joined(target_compact[3], target_compact[2]);
    if (missing_xss != 0) {
        reasons.push_back(
            fmt::format("the target's CPU lacks the supervisor states {:#x} (XSS)", missing_xss));
    }
    for (unsigned i = kFirstExtendedComponent; i < kXsaveComponents; ++i) {
        if ((source.xcr0 >> i & 1) == 0 || (missing >> i & 1) != 0) continue;
        const Registers here = leaf_of(source, {kXsaveLeaf, i});
        const Registers there = leaf_of(target, {kXsaveLeaf, i});
        if (here[0] != there[0] || here[1] != there[1]) {
            reasons.push_back(
                fmt::format("the target's CPU saves register state {} elsewhere ({} bytes at {}, the "
                            "guest's {} at {})",
                            i, there[0], there[1], here[0], here[1]));
        }
    }
}

void compare_counters(const CpuFeatures& source, const CpuFeatures& target,
                      std::vector<std::string>& reasons) {
    const std::uint32_t here = leaf_of(source, {kPerfLeaf, 0})[0];
    const std::uint32_t there = leaf_of(target, {kPerfLeaf, 0})[0];
    if ((here & 0xff) == 0) return;
    if ((there & 0xff) < (here & 0xff) || (there >> 8 & 0xff) < (here >> 8 & 0xff)) {
        reasons.push_back(
            fmt::format("the target's CPU has performance counters of version {} ({} of them), the guest "
                        "uses version {} ({})",
                        there & 0xff, there >> 8 & 0xff, here & 0xff, here >> 8 & 0xff));
    }
}

void compare_hypervisors(const CpuFeatures& source, const CpuFeatures& target,
                         std::vector<std::string>& reasons) {
    // QEMU's own emulation offers no paravirtual interface that a kernel could rely on.
    if (source.hypervisor.empty() || source.hypervisor.starts_with("TCG")) return;
    if (source.hypervisor != target.hypervisor) {
        reasons.push_back(fmt::format("the guest uses the paravirtual interface of {}, the target offers {}",
                                      source.hypervisor,
                                      target.hypervisor.empty() ? std::string("none") : target.hypervisor));
        return;
    }
    const std::uint32_t missing =
        leaf_of(source, {kHypervisorLeaf + 1, 0})[0] & ~leaf_of(target, {kHypervisorLeaf + 1, 0})[0];
    if (source.hypervisor.starts_with("KVM") && missing != 0) {
        reasons.push_back(
            fmt::format("the target's hypervisor lacks the paravirtual features {:#x}", missing));
    }
}

}  // namespace

CpuFeatures read_cpu_features() {
    CpuFeatures cpu;
    const auto read = [&cpu](std::uint32_t leaf, std::uint32_t subleaf) {
        Registers r{};
        __cpuid_count(leaf, subleaf, r[0], r[1], r[2], r[3]);
        cpu.leaves[{leaf, subleaf}] = r;
        return r;
    };
    const auto text = [](std::uint32_t a, std::uint32_t b, std::uint32_t c) {
        std::string signature;
        for (const std::uint32_t part : {a, b, c}) {
            for (unsigned shift = 0; shift < 32; shift += 8) {
                const char letter = static_cast<char>(part >> shift & 0xff);
                if (letter > ' ' && letter <= '~') signature += letter;
            }
        }
        return signature;
    };

    Registers base{};
    __cpuid(0, base[0], base[1], base[2], base[3]);
    cpu.vendor = text(base[1], base[3], base[2]);
    const std::uint32_t highest = base[0];
    Registers extended{};
    __cpuid(0x80000000, extended[0], extended[1], extended[2], extended[3]);

    const Registers first = read(1, 0);
    if (highest >= 6) read(6, 0);
    if (highest >= 7) {
        const std::uint32_t subleaves = read(7, 0)[0];
        for (std::uint32_t i = 1; i <= 2 && i <= subleaves; ++i) read(7, i);
    }
    if (highest >= kPerfLeaf) read(kPerfLeaf, 0);
    if (highest >= kXsaveLeaf) {
        read(kXsaveLeaf, 0);
        read(kXsaveLeaf, 1);
    }
    if ((first[2] & bit_OSXSAVE) != 0) {
        cpu.xcr0 = read_xcr0();
        for (unsigned i = kFirstExtendedComponent; i < kXsaveComponents; ++i) {
            if ((cpu.xcr0 >> i & 1) != 0) read(kXsaveLeaf, i);
        }
    }
    for (const std::uint32_t leaf : {0x80000001u, 0x80000007u, 0x80000008u}) {
        if (extended[0] >= leaf) read(leaf, 0);
    }
    if ((first[2] & bit(31)) != 0) {
        Registers signature{};
        __cpuid(kHypervisorLeaf, signature[0], signature[1], signature[2], signature[3]);
        cpu.hypervisor = text(signature[1], signature[2], signature[3]);
        if (signature[0] > kHypervisorLeaf) read(kHypervisorLeaf + 1, 0);
    }
    return cpu;
}

std::vector<std::string> compare_cpus(const CpuFeatures& source, const CpuFeatures& target) {
    std::vector<std::string> reasons;
    if (source.vendor != target.vendor) {
        reasons.push_back(fmt::format("the target's CPU is a {}, the guest has adapted itself to a {}",
                                      target.vendor, source.vendor));
    }
    for (const FeatureWord& feature : kFeatureWords) {
        std::uint32_t missing = leaf_of(source, feature.leaf).at(feature.index) &
                                ~leaf_of(target, feature.leaf).at(feature.index) & ~feature.ignored;
        // AMD repeats leaf 1's bits in 0x80000001: say them once.
        if (feature.leaf.first == 0x80000001 && feature.index == 3) missing &= ~0x0183f3ffu;
        for (; missing != 0; missing &= missing - 1) {
            reasons.push_back(
                fmt::format("CPU feature {} is missing on the target",
                            feature_name(feature, static_cast<unsigned>(std::countr_zero(missing)))));
        }
    }
    const std::uint32_t source_bits = leaf_of(source, {0x80000008, 0})[0];
    const std::uint32_t target_bits = leaf_of(target, {0x80000008, 0})[0];
    if ((target_bits & 0xff) < (source_bits & 0xff)) {
        reasons.push_back(fmt::format("the target's CPU has {} physical address bits, the guest counts on {}",
                                      target_bits & 0xff, source_bits & 0xff));
    }
    compare_xsave(source, target, reasons);
    compare_counters(source, target, reasons);
    compare_hypervisors(source, target, reasons);
    return reasons;
}

}  // namespace smig
