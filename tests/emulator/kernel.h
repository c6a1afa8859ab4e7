// Put behind the source of a kernel: what calls it, and what says which parameters it has.

#include <string>
#include <utility>

template <class T> struct EmulatorName {
    static std::string of() {
        std::string bits = std::to_string(8 * sizeof(T));
        if (std::is_same<T, bool>::value) return "bool";
        if (std::is_floating_point<T>::value) return "float" + bits;
        if (std::is_integral<T>::value) return (std::is_signed<T>::value ? "int" : "uint") + bits;
        return "struct";
    }
};
template <> struct EmulatorName<bf16> { static std::string of() { return "bfloat16"; } };
template <> struct EmulatorName<f16> { static std::string of() { return "float16"; } };
template <class T> struct EmulatorName<T*> {
    static std::string of() { return EmulatorName<std::remove_cv_t<T>>::of() + "*"; }
};

#define EMULATOR_OWN __attribute__((no_sanitize("thread")))  // not a part of the kernel
#define EMULATOR_PUBLIC extern "C" __attribute__((visibility("default")))

template <class... A, size_t... I>
EMULATOR_OWN void emulator_call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*(A*)arguments[I]...);
}
template <class... A> EMULATOR_OWN void emulator_call(void (*kernel)(A...), void** arguments) {
    emulator_call(kernel, arguments, std::index_sequence_for<A...>{});
}
static std::string emulator_names;
template <class... A> const char* emulator_parameters(void (*kernel)(A...)) {
    emulator_names.clear();
    ((emulator_names += EmulatorName<std::remove_cv_t<A>>::of() + " "), ...);
    return emulator_names.c_str();
}

EMULATOR_PUBLIC EMULATOR_OWN void emulator_kernel(void** arguments) { emulator_call(EMULATOR_EXPRESSION, arguments); }
EMULATOR_PUBLIC const char* emulator_kernel_parameters() { return emulator_parameters(EMULATOR_EXPRESSION); }

static thread_local volatile char emulator_touched;
EMULATOR_PUBLIC EMULATOR_OWN void emulator_touch() { emulator_touched = 1; }
