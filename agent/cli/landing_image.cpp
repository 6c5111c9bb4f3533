// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/landing_image.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "agent/landing/image.hpp"

namespace smig {

int landing_image_command(int argc, const char* const* argv) {
    ImageOptions options;
    CLI::App app("Make the initramfs for a target VM: this agent, the kernel's drivers, selfmigrate.ko.",
                 "selfmigrate landing-image");
    app.add_option("-o,--output", options.output, "the file to write")->required()->type_name("FILE");
    app.add_option("--module", options.own_module,
                   "selfmigrate.ko, if it is not installed in the module tree")
        ->type_name("PATH");
    app.add_option("--kernel", options.release, "for another kernel than the running one")
        ->type_name("RELEASE");
    app.add_option("--module-tree", options.tree, "its modules, if not in /lib/modules/RELEASE")
        ->type_name("FOLDER");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }

    const Result<ImageSummary> made = make_image(options);
    if (!made) {
        fmt::print(stderr, "selfmigrate: {}\n", made.error().text);
        return 1;
    }
    const ImageSummary& image = made.value();
    constexpr double kMebibyte = 1024.0 * 1024.0;
    fmt::print("{}: {:.1f} MiB, landing image for kernel {}\n", options.output,
               static_cast<double>(image.bytes) / kMebibyte, image.release);
    fmt::print("  agent with {} libraries; {} modules; {}\n", image.libraries.size(), image.modules.size(),
               image.own_module);
    fmt::print("  modules: {}\n", fmt::join(image.modules, " "));
    if (!image.left_out.empty()) {
        fmt::print("  left out (loaded here, but not in the module tree): {}\n",
                   fmt::join(image.left_out, " "));
    }
    fmt::print(
        "Start the target with this kernel, this image and on its command line\n"
        "  selfmigrate.net=INTERFACE|MAC,ADDRESS/PREFIX[,GATEWAY] selfmigrate.listen=ADDRESS "
        "selfmigrate.insecure\n");
    return 0;
}

}  // namespace smig
