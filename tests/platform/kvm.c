/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of a KVM guest: its faults are taken in the kernel, inside KVM_RUN, and arrive through
 * userfaultfd like others. The guest is five bytes of real-mode code.
 */
#include "platform.h"

#include <linux/kvm.h>
#include <pthread.h>

#define LEN       (16 * PAGE)
#define CODE_AT   0
#define DATA_AT   (4 * PAGE)
#define RUN_BYTES 4096

/* mov al, [0x4000] ; inc al ; mov [0x5000], al ; hlt */
static const uint8_t code[] = {0xa0, 0x00, 0x40, 0xfe, 0xc0, 0xa2, 0x00, 0x50, 0xf4};

struct vm {
	int kvm, vm, vcpu;
	struct kvm_run *run;
	_Atomic bool done;
	int exit;
	uint8_t *mem;
};

static bool vm_open(struct vm *v, uint8_t *mem)
{
	struct kvm_userspace_memory_region region = {.memory_size = LEN,
						     .userspace_addr = addr_of(mem)};
	struct kvm_sregs s;
	struct kvm_regs regs = {.rip = CODE_AT, .rflags = 2};

	memset(v, 0, sizeof(*v));
	v->mem = mem;
	v->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (v->kvm < 0)
		return false;
	v->vm = ioctl(v->kvm, KVM_CREATE_VM, 0);
	if (v->vm < 0 || ioctl(v->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return false;
	v->vcpu = ioctl(v->vm, KVM_CREATE_VCPU, 0);
	if (v->vcpu < 0 || ioctl(v->vcpu, KVM_GET_SREGS, &s) < 0)
		return false;
	s.cs.base = s.cs.selector = s.ds.base = s.ds.selector = 0;
	if (ioctl(v->vcpu, KVM_SET_SREGS, &s) < 0 || ioctl(v->vcpu, KVM_SET_REGS, &regs) < 0)
		return false;
	v->run = mmap(NULL, RUN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, v->vcpu, 0);
	return v->run != MAP_FAILED;
}

static void vm_close(struct vm *v)
{
	if (v->run)
		munmap(v->run, RUN_BYTES);
	close(v->vcpu);
	close(v->vm);
	close(v->kvm);
}

static void *vm_run(void *arg)
{
	struct vm *v = arg;

	v->exit = ioctl(v->vcpu, KVM_RUN, 0) < 0 ? -errno : (int)v->run->exit_reason;
	v->done = true;
	return NULL;
}

static bool wait_done(struct vm *v)
{
	for (int i = 0; i < 50000 && !v->done; i++)
		sleep_us(100);
	return v->done;
}

static void missing(void)
{
	uint8_t *mem = map_anon(LEN), page[PAGE] = {};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), faults = 0;
	struct uffd_msg m;
	pthread_t thread;
	struct vm v;
	uint64_t end = now_us() + 10000000;
	bool data = false;

	must(fd >= 0 && uffd_features(fd, 0) == 0);
	must(uffd_reg(fd, mem, LEN, UFFDIO_REGISTER_MODE_MISSING) == 0);
	if (!vm_open(&v, mem)) {
		untried("a virtual machine cannot be made: %s", strerror(errno));
		return;
	}
	must(pthread_create(&thread, NULL, vm_run, &v) == 0);
	while (!v.done && now_us() < end) {
		uint64_t at;

		if (uffd_next(fd, &m, 50) != UFFD_EVENT_PAGEFAULT)
			continue;
		at = m.arg.pagefault.address - addr_of(mem);
		memset(page, 0, sizeof(page));
		if (at == CODE_AT)
			memcpy(page, code, sizeof(code));
		if (at == DATA_AT) {
			page[0] = 0x41;
			data = true;
		}
		must(uffd_copy(fd, mem + at, page, PAGE, NULL) == 0);
		faults++;
	}
	must(wait_done(&v));
	pthread_join(thread, NULL);
	fact(faults >= 2, "missing pages of a KVM guest arrive as faults (%d), also its code",
	     faults);
	if (v.exit != KVM_EXIT_HLT)
		untried("execution of what was placed: this KVM ended with %d", v.exit);
	else
		fact(data && mem[DATA_AT + PAGE] == 0x42, "and it runs on with what was placed");
	vm_close(&v);
	close(fd);
	munmap(mem, LEN);
}

static void async(void)
{
	uint8_t *mem = map_anon(LEN);
	int fd = uffd_new(UFFD_FEATURE_PAGEFAULT_FLAG_WP | WP_UNPOP | WP_ASYNC);
	int map = map_of(getpid()), n;
	struct scan_run runs[16];
	struct vm v;

	memset(mem, 0, LEN);
	memcpy(mem + CODE_AT, code, sizeof(code));
	if (!vm_open(&v, mem)) {
		untried("a virtual machine cannot be made: %s", strerror(errno));
		return;
	}
	must(uffd_reg(fd, mem, LEN, UFFDIO_REGISTER_MODE_WP) == 0 &&
	     uffd_wp(fd, mem, LEN, true) == 0);
	vm_run(&v);
	n = scan(map, mem, LEN, true, SCAN_WRITTEN, 0, runs, 16);
	if (v.exit != KVM_EXIT_HLT)
		untried("writes of a KVM guest: this KVM ended with %d", v.exit);
	else
		fact(n == 1 && runs[0].start == addr_of(mem + DATA_AT + PAGE),
		     "asynchronous tracking sees the writes of a KVM guest");
	vm_close(&v);
	close(map);
	close(fd);
	munmap(mem, LEN);
}

int main(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (kvm < 0) {
		untried("/dev/kvm: %s", strerror(errno));
		return 77;
	}
	close(kvm);
	if (fd < 0) {
		untried("userfaultfd for faults of the kernel: %s", strerror(errno));
		return 77;
	}
	close(fd);
	/* A guest that goes astray would run for ever. */
	alarm(60);
	missing();
	if ((uffd_known() & (WP_ASYNC | WP_UNPOP)) == (WP_ASYNC | WP_UNPOP))
		async();
	else
		untried("asynchronous tracking: this kernel has none");
	return facts_end();
}
