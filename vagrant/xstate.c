/* Let User-Mode Linux run on CPUs with AMX: LD_PRELOADed into linux.uml by `lab`.
 *
 * Facts: between two processes inside, the kernel saves and restores floating point registers by ptrace(2),
 * PTRACE_GETREGSET and PTRACE_SETREGSET with NT_X86_XSTATE. Linux 6.1's buffer for them ends where AVX-512 and PKRU end
 * (2696 bytes; arch/x86/um); AMX makes the set 11008 bytes long. Reading a part of the set is allowed, writing a part
 * is answered with EFAULT: "ptrace set fp regs failed, errno = 14", and the machine panics before its first program.
 * Consequence: on such a CPU the missing part must be written too.
 * Decision: write it as zeros. The header in the first part says that the components beyond it are in their initial
 * state, and nothing inside can have used them, since AMX must be asked for (arch_prctl(2), ARCH_REQ_XCOMP_PERM) from
 * the machine's kernel, which no system call made inside ever reaches.
 * Price: gcc is needed on such machines, 60 ms a boot.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

static char registers[1 << 16]; /* the set is as long as CPUID leaf 13 says, far less */
static struct iovec whole = {registers, 0};

long ptrace(enum __ptrace_request request, ...)
{
	static long (*next)(enum __ptrace_request, ...);
	va_list arguments;
	va_start(arguments, request);
	pid_t pid = va_arg(arguments, pid_t);
	void *address = va_arg(arguments, void *);
	void *data = va_arg(arguments, void *);
	va_end(arguments);

	if (!next)
		next = (long (*)(enum __ptrace_request, ...))dlsym(RTLD_NEXT, "ptrace");
	if (request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE) {
		struct iovec *part = data;
		if (!whole.iov_len) {
			whole.iov_len = sizeof registers;
			if (next(PTRACE_GETREGSET, pid, address, &whole) < 0) {
				whole.iov_len = 0;
				return -1;
			}
		}
		if (part->iov_len < whole.iov_len) {
			memset(registers, 0, whole.iov_len);
			memcpy(registers, part->iov_base, part->iov_len);
			data = &whole;
		}
	}
	return next(request, pid, address, data);
}
