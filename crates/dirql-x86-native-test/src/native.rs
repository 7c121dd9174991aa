//! The host's side: cases run in a forked child, so that whatever an instruction does, it does there.
#![expect(unsafe_code, reason = "runs generated machine code, in a child process that does nothing else")]

use crate::case::{AT, CODE, Case, DATA, PAD, State, WINDOW};
use std::ptr;

/// The child's registers, with a place for its own stack pointer behind.
#[repr(C, align(64))]
struct Current {
    state: State,
    stack: u64,
    target: u64,
}

#[unsafe(no_mangle)]
static mut DIRQL_CURRENT: Current = Current {
    state: State {
        gpr: [0; 16],
        rflags: 0,
        mxcsr: 0,
        exit: 0,
        error: 0,
        cr2: 0,
        pad: [0; 3],
        ymm: [[0; 2]; 16],
        memory: [0; WINDOW],
    },
    stack: 0,
    target: 0,
};

unsafe extern "C" {
    fn dirql_enter();
    fn dirql_leave();
    fn dirql_leave_branch();
}

// Every register but rip belongs to the case: the stub finds its own by rip-relative addresses.
std::arch::global_asm!(
    ".globl dirql_enter",
    "dirql_enter:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "sub rsp, 8",
    "mov [rip + DIRQL_CURRENT + {stack}], rsp",
    "ldmxcsr [rip + DIRQL_CURRENT + 136]",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "vmovdqu ymm\\n, [rip + DIRQL_CURRENT + 192 + 32*\\n]",
    ".endr",
    "push qword ptr [rip + DIRQL_CURRENT + 128]",
    "popfq",
    "mov rax, [rip + DIRQL_CURRENT]",
    "mov rcx, [rip + DIRQL_CURRENT + 8]",
    "mov rdx, [rip + DIRQL_CURRENT + 16]",
    "mov rbx, [rip + DIRQL_CURRENT + 24]",
    "mov rsp, [rip + DIRQL_CURRENT + 32]",
    "mov rbp, [rip + DIRQL_CURRENT + 40]",
    "mov rsi, [rip + DIRQL_CURRENT + 48]",
    "mov rdi, [rip + DIRQL_CURRENT + 56]",
    ".irp n, 8,9,10,11,12,13,14,15",
    "mov r\\n, [rip + DIRQL_CURRENT + 8*\\n]",
    ".endr",
    "jmp qword ptr [rip + DIRQL_CURRENT + {target}]",
    ".globl dirql_leave_branch",
    "dirql_leave_branch:",
    "mov qword ptr [rip + DIRQL_CURRENT + 144], 1",
    ".globl dirql_leave",
    "dirql_leave:",
    "mov [rip + DIRQL_CURRENT], rax",
    "mov [rip + DIRQL_CURRENT + 8], rcx",
    "mov [rip + DIRQL_CURRENT + 16], rdx",
    "mov [rip + DIRQL_CURRENT + 24], rbx",
    "mov [rip + DIRQL_CURRENT + 32], rsp",
    "mov [rip + DIRQL_CURRENT + 40], rbp",
    "mov [rip + DIRQL_CURRENT + 48], rsi",
    "mov [rip + DIRQL_CURRENT + 56], rdi",
    ".irp n, 8,9,10,11,12,13,14,15",
    "mov [rip + DIRQL_CURRENT + 8*\\n], r\\n",
    ".endr",
    "mov rsp, [rip + DIRQL_CURRENT + {stack}]",
    "pushfq",
    "pop qword ptr [rip + DIRQL_CURRENT + 128]",
    "cld",
    "stmxcsr [rip + DIRQL_CURRENT + 136]",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "vmovdqu [rip + DIRQL_CURRENT + 192 + 32*\\n], ymm\\n",
    ".endr",
    "vzeroupper",
    "push 0x1f80",
    "ldmxcsr [rsp]",
    "add rsp, 16",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    stack = const std::mem::offset_of!(Current, stack),
    target = const std::mem::offset_of!(Current, target),
);

/// Notes the exception and goes on at `dirql_leave` with the registers as they are.
extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel passes a valid context to a handler set with SA_SIGINFO; nothing else refers to it.
    let gregs = unsafe { &mut (*context).uc_mcontext.gregs };
    let trap = gregs[libc::REG_TRAPNO as usize] as u64;
    let at = ptr::addr_of_mut!(DIRQL_CURRENT);
    // SAFETY: the child has one thread, and the stub that uses this is interrupted.
    let state = unsafe { &mut (*at).state };
    state.exit = 0x100 + trap;
    if trap == 14 {
        state.error = gregs[libc::REG_ERR as usize] as u64 & 0x13;
        state.cr2 = gregs[libc::REG_CR2 as usize] as u64;
    }
    gregs[libc::REG_RIP as usize] = dirql_leave as *const () as i64;
}

/// Whether this host's processor has what the cases need.
pub fn available() -> bool {
    macro_rules! all {
        ($($f:tt)*) => { true $(&& std::arch::is_x86_feature_detected!($f))* };
    }
    all!("sse4.2" "popcnt" "lzcnt" "bmi1" "bmi2" "adx" "movbe" "cmpxchg16b" "aes" "pclmulqdq" "avx" "avx2")
}

fn map(at: u64, len: usize, prot: libc::c_int, shared: bool) -> Option<*mut u8> {
    let fixed = if at == 0 { 0 } else { libc::MAP_FIXED_NOREPLACE };
    let kind = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    // SAFETY: an anonymous mapping that replaces none that exists.
    let p =
        unsafe { libc::mmap(at as *mut libc::c_void, len, prot, fixed | kind | libc::MAP_ANONYMOUS, -1, 0) };
    (p != libc::MAP_FAILED).then_some(p.cast())
}

/// The body of the child.
fn child(cases: &[Case], out: *mut State) -> Option<()> {
    use libc::{PROT_EXEC, PROT_READ, PROT_WRITE};
    let code = map(CODE, 0x1000, PROT_READ | PROT_WRITE | PROT_EXEC, false)?;
    let data = map(DATA, 0x3000, PROT_READ | PROT_WRITE, false)?;
    let stack = map(0, 0x10000, PROT_READ | PROT_WRITE, false)?;
    let alternate = libc::stack_t { ss_sp: stack.cast(), ss_flags: 0, ss_size: 0x10000 };
    // SAFETY: the stack was just mapped and is used for nothing else.
    unsafe { libc::sigaltstack(&raw const alternate, ptr::null_mut()) };
    // SAFETY: an all-zero sigaction is a valid one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
        // SAFETY: `action` is complete, and the handler keeps to what a handler may do.
        unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    }
    // SAFETY: an alarm ends the child should an instruction never do so.
    unsafe { libc::alarm(60) };
    let jump = |to: usize| {
        let mut b = [0u8; 14];
        b[..6].copy_from_slice(&[0xff, 0x25, 0, 0, 0, 0]);
        b[6..].copy_from_slice(&(to as u64).to_le_bytes());
        b
    };
    let (leave, branch) =
        (jump(dirql_leave as *const () as usize), jump(dirql_leave_branch as *const () as usize));
    let current = ptr::addr_of_mut!(DIRQL_CURRENT);
    for (n, case) in cases.iter().enumerate() {
        let put = |to: *mut u8, from: &[u8]| {
            // SAFETY: all that is put lies in the pages mapped above, which nothing borrows.
            unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        };
        let len = case.len as usize;
        put(code.wrapping_add((AT - CODE) as usize), &case.bytes[..len]);
        put(code.wrapping_add((AT - CODE) as usize + len), &leave);
        put(code.wrapping_add((PAD - CODE) as usize), &branch);
        let window = data.wrapping_add((case.window - DATA) as usize);
        let last = case.window >= DATA + 0x2000;
        if last {
            // SAFETY: the page is the child's own.
            unsafe { libc::mprotect(data.wrapping_add(0x2000).cast(), 0x1000, PROT_READ | PROT_WRITE) };
        }
        put(window, &case.before.memory);
        // SAFETY: as above.
        unsafe { libc::mprotect(data.wrapping_add(0x2000).cast(), 0x1000, PROT_READ) };
        // A page that the host's kernel has not put into the tables again would fault as one that isn't there.
        // SAFETY: the page is the child's own, and can be read.
        unsafe { ptr::read_volatile(data.wrapping_add(0x2000)) };
        // SAFETY: one thread, and the stub doesn't run now.
        unsafe { (*current).state = case.before };
        // SAFETY: as above.
        unsafe { (*current).target = AT };
        // SAFETY: the stub keeps the registers that a C function must keep, and comes back by fall-through,
        // branch or signal; what the instruction writes lies in the data pages by the making of the cases, and
        // should it not, only this child is harmed.
        unsafe { dirql_enter() };
        // SAFETY: `out` has a place for each case.
        let result = unsafe { &mut *out.wrapping_add(n) };
        // SAFETY: one thread, and the stub doesn't run now.
        *result = unsafe { (*current).state };
        // SAFETY: the window lies in the data pages.
        unsafe { ptr::copy_nonoverlapping(window, result.memory.as_mut_ptr(), WINDOW) };
    }
    Some(())
}

/// Runs the cases on the host. `None` when the child died: its cases broke out of what it can catch.
pub fn run(cases: &[Case]) -> Option<Vec<State>> {
    let size = size_of_val(cases).max(1) * 2;
    let shared = map(0, size, libc::PROT_READ | libc::PROT_WRITE, true)?.cast::<State>();
    // SAFETY: the child touches only its own memory and the shared mapping, and calls nothing that could need
    // a lock another thread held.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let ok = child(cases, shared).is_some();
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(if ok { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    let good = pid > 0 && waited == pid && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
    // SAFETY: the mapping is large enough, zeroed or written by the child, which has ended; any bytes make a
    // valid `State`.
    let out = good.then(|| unsafe { std::slice::from_raw_parts(shared, cases.len()) }.to_vec());
    // SAFETY: nothing refers to the mapping any more.
    unsafe { libc::munmap(shared.cast(), size) };
    out
}
