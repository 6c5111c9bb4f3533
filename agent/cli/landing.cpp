// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/landing.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cstring>
#include <string_view>

#include "agent/landing/environment.hpp"
#include "agent/machine/sysfs.hpp"

namespace smig {

namespace {

constexpr unsigned kInterfaceWaitMs = 15000;
constexpr unsigned kClockWaitMs = 5000;
constexpr long kPauseNs = 500'000'000;  // before `receive` is started again
constexpr unsigned kHopelessPauseS = 30;

// Without stdio: PID 1 keeps no buffers, and a line reaches the console whole.
void say(const std::string& line) {
    const std::string text = "selfmigrate: " + line + "\n";
    (void)!::write(STDOUT_FILENO, text.data(), text.size());
}

// The kernel opens /dev/console for PID 1 if it can; after devtmpfs is mounted it certainly exists.
void open_console() {
    if (::fcntl(STDOUT_FILENO, F_GETFD) >= 0) return;
    const int console = ::open("/dev/console", O_RDWR | O_NOCTTY);
    if (console < 0) return;
    for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
        if (standard != console) ::dup2(console, standard);
    }
    if (console > STDERR_FILENO) ::close(console);
}

pid_t start_receive(const std::vector<std::string>& arguments) {
    std::string program = "selfmigrate";
    std::vector<std::string> words = arguments;
    std::vector<char*> argv{program.data()};
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const pid_t child = ::fork();
    if (child != 0) return child;
    // A signal to this process must not leave the child behind, holding memory that the module gave it.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::execv("/proc/self/exe", argv.data());
    say(fmt::format("cannot start receive: {}", std::strerror(errno)));
    ::_exit(127);
}

// Waits for `child`, burying whatever else died meanwhile: orphans are PID 1's.
int await_child(pid_t child) {
    for (;;) {
        int status = 0;
        const pid_t ended = ::waitpid(-1, &status, 0);
        if (ended == child) return status;
        if (ended < 0 && errno != EINTR) return 0;
    }
}

std::string how_it_ended(int status) {
    if (WIFSIGNALED(status)) return fmt::format("was killed by signal {}", WTERMSIG(status));
    return fmt::format("ended with code {}", WEXITSTATUS(status));
}

void pause_ns(long nanoseconds) {
    const timespec pause{0, nanoseconds};
    ::nanosleep(&pause, nullptr);
}

void set_up(bool as_init, BootOptions& options) {
    mount_kernel_filesystems(say);
    if (as_init) open_console();
    show_kernel_warnings();
    keep_no_huge_pages();
    options = parse_boot_options(sysfs::read_text("/proc/cmdline"));
    for (const std::string& wrong : options.wrong) say("kernel command line: " + wrong);
    load_image_modules(say);
    bring_up_network(options, kInterfaceWaitMs, say);
    await_clock(kClockWaitMs);
}

[[noreturn]] void run_for_ever(const std::vector<std::string>& arguments) {
    for (;;) {
        const pid_t child = start_receive(arguments);
        if (child > 0) {
            say(fmt::format("receive {}", how_it_ended(await_child(child))));
        } else {
            say(fmt::format("cannot start receive: {}", std::strerror(errno)));
        }
        pause_ns(kPauseNs);
        say("receive is started again");
    }
}

}  // namespace

bool started_as_init(int argc, const char* const* argv) {
    return ::getpid() == 1 && argc > 0 && std::string_view(argv[0]).ends_with("init");
}

int landing_command(int argc, const char* const* argv) {
    const bool as_init = started_as_init(argc, argv);
    if (!as_init) {
        CLI::App app(
            "Receive guests as the kernel command line says (selfmigrate.net, selfmigrate.listen), for ever.",
            "selfmigrate landing");
        try {
            app.parse(argc, argv);
        } catch (const CLI::ParseError& error) {
            return app.exit(error) == 0 ? 0 : 2;
        }
    }

    BootOptions options;
    set_up(as_init, options);
    const Result<std::vector<std::string>> arguments = receive_arguments(options);
    if (!arguments) {
        say(arguments.error().text);
        if (!as_init) return 1;
        for (;;) {  // PID 1 must not end: the kernel would panic, and nobody could read why
            ::sleep(kHopelessPauseS);
            say(arguments.error().text);
        }
    }
    run_for_ever(arguments.value());
}

}  // namespace smig
