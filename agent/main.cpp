// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstring>

#include "agent/base/version.hpp"
#include "agent/cli/landing.hpp"
#include "agent/cli/landing_image.hpp"
#include "agent/cli/orders.hpp"
#include "agent/cli/receive.hpp"
#include "agent/cli/to.hpp"

namespace {

struct Subcommand {
    const char* name;
    int (*run)(int argc, const char* const* argv);
    const char* purpose;
};

constexpr Subcommand kSubcommands[] = {
    {"to", smig::to_command, "move this guest to another machine"},
    {"status", smig::status_command, "say how far the move is, or how the last one went"},
    {"cancel", smig::cancel_command, "give the move up"},
    {"switch-now", smig::switch_now_command, "make no further pass: move the guest now"},
    {"receive", smig::receive_command, "wait for a guest, in the landing environment"},
    {"landing-image", smig::landing_image_command, "make the initramfs for the target"},
    {"landing", smig::landing_command, "be the landing environment (its /init does it)"},
};

void print_usage(std::FILE* out) {
    std::fprintf(out, "usage: selfmigrate SUBCOMMAND [OPTIONS], or --version\n");
    for (const Subcommand& one : kSubcommands) std::fprintf(out, "  %-14s %s\n", one.name, one.purpose);
    std::fprintf(out, "selfmigrate SUBCOMMAND --help says more\n");
}

}  // namespace

int main(int argc, char** argv) {
    if (smig::started_as_init(argc, argv)) return smig::landing_command(argc, argv);
    if (argc < 2) {
        print_usage(stderr);
        return 2;
    }
    if (std::strcmp(argv[1], "--version") == 0) {
        std::printf("selfmigrate %s\n", smig::version_text());
        return 0;
    }
    if (std::strcmp(argv[1], "--help") == 0 || std::strcmp(argv[1], "-h") == 0) {
        print_usage(stdout);
        return 0;
    }
    for (const Subcommand& one : kSubcommands)
        if (std::strcmp(argv[1], one.name) == 0) return one.run(argc - 1, argv + 1);
    std::fprintf(stderr, "selfmigrate: no subcommand %s\n", argv[1]);
    print_usage(stderr);
    return 2;
}
