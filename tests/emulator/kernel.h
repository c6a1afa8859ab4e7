// Put behind the source of a kernel: what calls it, and what says which parameters it has.

#include <type_traits>
#include <utility>

// The name of a type as NumPy calls it, with * behind it for a pointer to it.
template <class T> const char* emulator_name(T*) {
    const char* floats[] = {"", "", "", "", "float32", "", "", "", "float64"};
    const char* signed_numbers[] = {"", "int8", "int16", "", "int32", "", "", "", "int64"};
    const char* unsigned_numbers[] = {"", "uint8", "uint16", "", "uint32", "", "", "", "uint64"};
    if (std::is_same_v<T, bool>) return "bool";
    if (std::is_same_v<T, bf16>) return "bfloat16";
    if (std::is_same_v<T, f16>) return "float16";
    if (std::is_floating_point_v<T>) return floats[sizeof(T)];
    if (!std::is_integral_v<T>) return "struct";
    return (std::is_signed_v<T> ? signed_numbers : unsigned_numbers)[sizeof(T)];
}

static char emulator_names[2000];
template <class A> void emulator_add_name() {
    strcat(emulator_names, emulator_name((std::remove_cv_t<std::remove_pointer_t<A>>*)nullptr));
    strcat(emulator_names, std::is_pointer_v<A> ? "* " : " ");
}
template <class... A> const char* emulator_parameters(void (*kernel)(A...)) {
    emulator_names[0] = 0;
    (emulator_add_name<A>(), ...);
    return emulator_names;
}

#define EMULATOR_OWN __attribute__((no_sanitize("thread")))  // not a part of the kernel
#define EMULATOR_PUBLIC extern "C" __attribute__((visibility("default")))

template <class... A, size_t... I>
EMULATOR_OWN void emulator_call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*(A*)arguments[I]...);
}
template <class... A> EMULATOR_OWN void emulator_call(void (*kernel)(A...), void** arguments) {
    emulator_call(kernel, arguments, std::index_sequence_for<A...>{});
}
EMULATOR_PUBLIC EMULATOR_OWN void emulator_kernel(void** arguments) {
    emulator_call(EMULATOR_EXPRESSION, arguments);
}
EMULATOR_PUBLIC const char* emulator_kernel_parameters() {
    return emulator_parameters(EMULATOR_EXPRESSION);
}

static thread_local volatile char emulator_touched;
EMULATOR_PUBLIC EMULATOR_OWN void emulator_touch() { emulator_touched = 1; }
