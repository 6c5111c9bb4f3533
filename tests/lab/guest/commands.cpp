// SPDX-License-Identifier: Apache-2.0
// commands PORT: runs shell scripts that arrive over a virtio-serial port, one at a time.
//
//   host -> guest   RUN <id> <bytes>\n  script
//   guest -> host   DONE <id> <status> <bytes>\n  stdout and stderr
//   guest -> host   READY\n                once, at the start
//
// The process lives through moves: a script that began on one VM answers on the other.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

constexpr std::size_t kMaxScript = 1 << 20;
constexpr std::size_t kMaxOutput = 4 << 20;

// The port says 0 bytes or an error while no host is connected: wait for one.
void pause_briefly() {
    usleep(20'000);
}

void write_all(int fd, const std::string& bytes) {
    for (std::size_t done = 0; done < bytes.size();) {
        const ssize_t put = write(fd, bytes.data() + done, bytes.size() - done);
        if (put > 0)
            done += static_cast<std::size_t>(put);
        else
            pause_briefly();
    }
}

class Port {
public:
    explicit Port(int fd) : fd_(fd) {}

    char next() {
        while (at_ == have_) {
            const ssize_t got = read(fd_, buffer_.data(), buffer_.size());
            if (got > 0) {
                at_ = 0;
                have_ = static_cast<std::size_t>(got);
            } else {
                pause_briefly();
            }
        }
        return buffer_[at_++];
    }

    std::string line() {
        std::string text;
        for (char byte = next(); byte != '\n'; byte = next()) {
            if (text.size() < 256) text += byte;
        }
        return text;
    }

private:
    int fd_;
    std::array<char, 4096> buffer_{};
    std::size_t at_ = 0;
    std::size_t have_ = 0;
};

// Output of `script`, and its exit status (128 + signal when killed).  A process it left behind in the
// background must not keep the pipe open: redirect its output.
std::string run(const std::string& script, int& status) {
    std::array<int, 2> pipe_fds{};
    if (pipe2(pipe_fds.data(), O_CLOEXEC) != 0) {
        status = 126;
        return "pipe failed\n";
    }
    const pid_t child = fork();
    if (child == 0) {
        const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (null >= 0) dup2(null, 0);
        dup2(pipe_fds[1], 1);
        dup2(pipe_fds[1], 2);
        setsid();
        execl("/bin/sh", "sh", "-c", script.c_str(), static_cast<char*>(nullptr));
        _exit(127);
    }
    close(pipe_fds[1]);
    std::string output;
    std::array<char, 65536> chunk{};
    for (ssize_t got; child > 0 && (got = read(pipe_fds[0], chunk.data(), chunk.size())) > 0;) {
        const auto room = kMaxOutput - output.size();
        output.append(chunk.data(), std::min(room, static_cast<std::size_t>(got)));
    }
    close(pipe_fds[0]);
    int raw = 0;
    if (child < 0 || waitpid(child, &raw, 0) != child)
        status = 126;
    else
        status = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
    return output;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    const int fd = open(argv[1], O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        std::perror(argv[1]);
        return 1;
    }
    write_all(fd, "READY\n");
    Port port(fd);
    for (;;) {
        unsigned long id = 0;
        std::size_t length = 0;
        const std::string line = port.line();
        if (std::sscanf(line.c_str(), "RUN %lu %zu", &id, &length) != 2 || length > kMaxScript) continue;
        std::string script;
        while (script.size() < length) script += port.next();
        int status = 0;
        const std::string output = run(script, status);
        write_all(fd, "DONE " + std::to_string(id) + ' ' + std::to_string(status) + ' ' +
                          std::to_string(output.size()) + '\n' + output);
    }
}
