/* Follows the system calls of a child that can change files, and kills it right before one of
 * them, lets one fail, sends it a signal, or writes all of them down. A library: the child calls
 * volunteer() and mark(), its parent follow(). What is not known to be harmless is taken for a
 * change. Another program that the child starts is let go. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAGIC 0x686e7377636865L
#define GET_SYSCALL_INFO 0x420e
#define THREADS 64
#define LARGEST (1 << 20)

/* As linux/ptrace.h has it, which cannot be included beside sys/ptrace.h. */
struct info {
  uint8_t op, pad[3];
  uint32_t arch;
  uint64_t ip, sp;
  union {
    struct { uint64_t nr, args[6]; } entry;
    struct { int64_t rval; uint8_t is_error; } exit;
  };
};
enum { ENTRY = 1, EXIT = 2 };
enum { LOOK = 0, KILL = 1, FAIL_ONCE = 2, FAIL_ON = 3, SIGNAL = 4 };

struct call {
  pid_t thread;
  int counted, fails;
  uint64_t nr, args[6];
};

int volunteer(void) {
  if (ptrace(PTRACE_TRACEME, 0, 0, 0) < 0) return errno;
  return raise(SIGSTOP);
}

/* No process asks for its parent with arguments. */
void mark(long on) { syscall(SYS_getppid, MAGIC, on); }

static int opens_for_change(uint64_t flags) {
  return (flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE;
}

static int changes(uint64_t nr, const uint64_t *a) {
  switch (nr) {
#ifdef SYS_open
    case SYS_open: return opens_for_change(a[1]);
    case SYS_stat: case SYS_lstat: case SYS_access: case SYS_readlink: case SYS_poll:
    case SYS_getdents: case SYS_pipe: case SYS_select: case SYS_time: case SYS_dup2:
    case SYS_vfork:
      return 0;
#endif
    case SYS_openat: return opens_for_change(a[2]);
    case SYS_mmap: return (a[3] & MAP_SHARED) && (a[2] & PROT_WRITE);
    /* Locks and descriptors; none of them reaches a file. */
    case SYS_fcntl: case SYS_flock: case SYS_close: case SYS_dup: case SYS_dup3: case SYS_lseek:
    case SYS_read: case SYS_readv: case SYS_pread64: case SYS_preadv: case SYS_fstat:
#ifdef SYS_newfstatat
    case SYS_newfstatat:
#endif
    case SYS_statx: case SYS_statfs: case SYS_fstatfs: case SYS_faccessat:
#ifdef SYS_faccessat2
    case SYS_faccessat2:
#endif
    case SYS_readlinkat: case SYS_getdents64: case SYS_getcwd: case SYS_fadvise64:
    case SYS_getxattr: case SYS_lgetxattr: case SYS_fgetxattr: case SYS_listxattr:
    /* Memory, time, threads, signals, who we are. */
    case SYS_munmap: case SYS_mprotect: case SYS_mremap: case SYS_madvise: case SYS_brk:
    case SYS_futex: case SYS_clock_gettime: case SYS_clock_nanosleep: case SYS_nanosleep:
    case SYS_gettimeofday: case SYS_clone: case SYS_exit: case SYS_set_robust_list:
#ifdef SYS_clone3
    case SYS_clone3:
#endif
#ifdef SYS_rseq
    case SYS_rseq:
#endif
    case SYS_rt_sigaction: case SYS_rt_sigprocmask: case SYS_rt_sigreturn: case SYS_sigaltstack:
    case SYS_sched_yield: case SYS_sched_getaffinity: case SYS_getpid: case SYS_gettid:
    case SYS_getppid: case SYS_getuid: case SYS_geteuid: case SYS_getgid: case SYS_getegid:
    case SYS_getrandom: case SYS_getrusage: case SYS_prlimit64: case SYS_sysinfo: case SYS_uname:
    case SYS_pipe2: case SYS_ppoll: case SYS_pselect6: case SYS_restart_syscall:
    case SYS_execve: case SYS_wait4:
#ifdef SYS_close_range
    case SYS_close_range:
#endif
      return 0;
    case SYS_ioctl: return a[1] != 0x5401 && a[1] != 0x5451; /* TCGETS, FIOCLEX */
    default: return 1;
  }
}

static const char *name_of(uint64_t nr) {
  switch (nr) {
#ifdef SYS_open
    case SYS_open: return "open";
    case SYS_rename: return "rename";
    case SYS_unlink: return "unlink";
    case SYS_mkdir: return "mkdir";
    case SYS_rmdir: return "rmdir";
    case SYS_chmod: return "chmod";
#endif
    case SYS_openat: return "openat";
#ifdef SYS_renameat
    case SYS_renameat: return "renameat";
#endif
    case SYS_renameat2: return "renameat2";
    case SYS_unlinkat: return "unlinkat";
    case SYS_write: return "write";
    case SYS_writev: return "writev";
    case SYS_sendfile: return "sendfile";
    case SYS_pwrite64: return "pwrite";
    case SYS_ftruncate: return "ftruncate";
    case SYS_fsync: return "fsync";
    case SYS_fdatasync: return "fdatasync";
    case SYS_fchown: return "fchown";
    case SYS_fchmod: return "fchmod";
    default: return NULL;
  }
}

static size_t peek(pid_t pid, uint64_t at, void *to, size_t size) {
  size_t done = 0;
  while (done < size) { /* page by page: the end of a text may be the end of its mapping */
    size_t part = 4096 - (at + done) % 4096;
    if (part > size - done) part = size - done;
    struct iovec here = {(char *)to + done, part}, there = {(void *)(at + done), part};
    ssize_t n = process_vm_readv(pid, &here, 1, &there, 1, 0);
    if (n <= 0) break;
    done += n;
  }
  return done;
}

static void print_hex(FILE *log, const unsigned char *bytes, size_t size) {
  fputc('\t', log);
  for (size_t i = 0; i < size; i++) fprintf(log, "%02x", bytes[i]);
}

static void print_text(FILE *log, pid_t pid, uint64_t at) {
  unsigned char text[4096] = {0};
  peek(pid, at, text, sizeof text - 1);
  print_hex(log, text, strlen((char *)text));
}

static void print_file(FILE *log, pid_t pid, int64_t descriptor) {
  char link[64];
  unsigned char path[4096];
  snprintf(link, sizeof link, "/proc/%d/fd/%d", pid, (int)descriptor);
  ssize_t n = readlink(link, (char *)path, sizeof path);
  print_hex(log, path, n < 0 ? 0 : n);
}

static void print_data(FILE *log, pid_t pid, uint64_t at, uint64_t size) {
  static unsigned char data[LARGEST];
  if (size > LARGEST) abort();
  print_hex(log, data, peek(pid, at, data, size));
}

/* name, result, a number, then paths and data in hexadecimal */
static void print_call(FILE *log, const struct call *c, int64_t result) {
  const uint64_t *a = c->args;
  const char *name = name_of(c->nr);
  pid_t pid = c->thread;
  if (name == NULL) {
    fprintf(log, "unknown-%lu\t%ld\t0\n", (unsigned long)c->nr, (long)result);
    return;
  }
  fprintf(log, "%s\t%ld\t", name, (long)result);
  switch (c->nr) {
#ifdef SYS_open
    case SYS_open: fprintf(log, "%lu", (unsigned long)a[1]); print_text(log, pid, a[0]); break;
    case SYS_rename: fputc('0', log); print_text(log, pid, a[0]); print_text(log, pid, a[1]); break;
    case SYS_unlink: case SYS_mkdir: case SYS_rmdir: case SYS_chmod:
      fputc('0', log); print_text(log, pid, a[0]); break;
#endif
    case SYS_openat: fprintf(log, "%lu", (unsigned long)a[2]); print_text(log, pid, a[1]); break;
#ifdef SYS_renameat
    case SYS_renameat:
#endif
    case SYS_renameat2:
      fputc('0', log); print_text(log, pid, a[1]); print_text(log, pid, a[3]); break;
    case SYS_unlinkat: fprintf(log, "%lu", (unsigned long)a[2]); print_text(log, pid, a[1]); break;
    case SYS_write:
      fputc('0', log); print_file(log, pid, a[0]); print_data(log, pid, a[1], a[2]); break;
    case SYS_pwrite64:
      fprintf(log, "%lu", (unsigned long)a[3]);
      print_file(log, pid, a[0]); print_data(log, pid, a[1], a[2]); break;
    case SYS_ftruncate: fprintf(log, "%lu", (unsigned long)a[1]); print_file(log, pid, a[0]); break;
    default: fputc('0', log); print_file(log, pid, a[0]);
  }
  fputc('\n', log);
}

/* A call can be refused only where we know the registers. */
int can_fail(void) {
#ifdef __x86_64__
  return 1;
#else
  return 0;
#endif
}

static void skip_call(pid_t pid) {
#ifdef __x86_64__
  ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.orig_rax), -1L);
#endif
}

static void answer_call(pid_t pid, int error) {
#ifdef __x86_64__
  ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.rax), -(long)error);
#endif
}

/* How many calls there were that can change files, between the marks; -1 if ptrace is missing.
 * The at-th is what the mode is about. The child is its own process group. ``error`` is the
 * number of the signal where one is to be sent. */
long follow(pid_t child, int mode, long at, int error, const char *log_path, int *ended) {
  struct call calls[THREADS] = {0};
  FILE *log = log_path ? fopen(log_path, "w") : NULL;
  long count = 0;
  int counting = 0, status, started = 0;
  const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                       PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
  for (;;) {
    pid_t pid = waitpid(-1, &status, __WALL);
    if (pid < 0) { count = -1; break; }
    if (!WIFSTOPPED(status)) {
      for (int i = 0; i < THREADS; i++) if (calls[i].thread == pid) calls[i].thread = 0;
      if (pid == child) { *ended = status; break; }
      continue;
    }
    int deliver = WSTOPSIG(status);
    struct call *c = NULL;
    for (int i = 0; i < THREADS && !c; i++) if (calls[i].thread == pid) c = &calls[i];
    if (!c) { /* the first stop of a thread */
      for (int i = 0; i < THREADS && !c; i++) if (!calls[i].thread) c = &calls[i];
      if (!c) abort();
      memset(c, 0, sizeof *c);
      c->thread = pid;
      if (!started++ && ptrace(PTRACE_SETOPTIONS, pid, 0, options) < 0) {
        kill(pid, SIGKILL);
        waitpid(pid, ended, __WALL);
        count = -1;
        break;
      }
      deliver = 0;
    } else if (deliver == (SIGTRAP | 0x80)) {
      struct info found = {0};
      deliver = 0;
      if (ptrace(GET_SYSCALL_INFO, pid, sizeof found, &found) < 0 && errno != ESRCH) abort();
      if (found.op == ENTRY) {
        c->nr = found.entry.nr;
        memcpy(c->args, found.entry.args, sizeof c->args);
        if (c->nr == SYS_getppid && c->args[0] == MAGIC) counting = (int)c->args[1];
        c->counted = counting && changes(c->nr, c->args);
        c->fails = 0;
        if (c->counted) {
          count++;
          if (mode == KILL && count == at) { kill(-child, SIGKILL); continue; }
          if (mode == SIGNAL && count == at) kill(child, error);
          c->fails = (mode == FAIL_ONCE && count == at) || (mode == FAIL_ON && count >= at);
          if (c->fails) skip_call(pid);
        }
      } else if (found.op == EXIT && c->counted) {
        if (c->fails) answer_call(pid, error);
        if (log) print_call(log, c, c->fails ? -error : found.exit.rval);
      }
    } else if (status >> 16 == PTRACE_EVENT_EXEC && pid != child) {
      c->thread = 0;
      ptrace(PTRACE_DETACH, pid, 0, 0);
      continue;
    } else if (status >> 16) { /* a clone or fork, which we follow anyway */
      deliver = 0;
    }
    ptrace(PTRACE_SYSCALL, pid, 0, deliver);
  }
  if (log) fclose(log);
  return count;
}
