"""A model that computes on a GPU with nothing but its driver: no library has to be installed.

A row is a JSON list of numbers, the answer their squares with the device that made them. It holds HELD_MIB of the
device's memory, so that its presence shows.
"""

import ctypes
import json
import os
from typing import Any

from idunno_model_server.api import BatchModel, RowError

HELD_MIB = 256
THREADS = 256
KERNEL = b"""
.version 6.0
.target sm_50
.address_size 64
.visible .entry square(.param .u64 data, .param .u32 count)
{
    .reg .pred %p<2>;
    .reg .b32 %r<6>;
    .reg .f32 %f<3>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [data];
    ld.param.u32 %r1, [count];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra DONE;
    cvta.to.global.u64 %rd2, %rd1;
    mul.wide.u32 %rd3, %r5, 4;
    add.s64 %rd4, %rd2, %rd3;
    ld.global.f32 %f1, [%rd4];
    mul.f32 %f2, %f1, %f1;
    st.global.f32 [%rd4], %f2;
DONE:
    ret;
}
"""


class Driver:
    """The driver's library, with an exception for what it refuses."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libcuda.so.1")

    def call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.library, name)(*arguments)
        if status != 0:
            text = ctypes.c_char_p()
            self.library.cuGetErrorString(status, ctypes.byref(text))
            raise RuntimeError(f"{name}: {(text.value or b'unknown error').decode()}")


class Squares(BatchModel):
    device = "cuda"
    memory_mib = 2 * HELD_MIB
    batch_max = 8

    def setup(self, context: Any) -> None:
        self.driver = driver = Driver()
        count, device, of_device = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p()
        driver.call("cuInit", 0)
        driver.call("cuDeviceGetCount", ctypes.byref(count))
        driver.call("cuDeviceGet", ctypes.byref(device), int(context.device.partition(":")[2]))
        name = ctypes.create_string_buffer(256)
        driver.call("cuDeviceGetName", name, len(name), device)
        driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(of_device), device)
        driver.call("cuCtxSetCurrent", of_device)
        module, self.kernel = ctypes.c_void_p(), ctypes.c_void_p()
        driver.call("cuModuleLoadData", ctypes.byref(module), KERNEL)
        driver.call("cuModuleGetFunction", ctypes.byref(self.kernel), module, b"square")
        self.memory = ctypes.c_uint64()
        driver.call("cuMemAlloc_v2", ctypes.byref(self.memory), ctypes.c_size_t(HELD_MIB << 20))
        self.about = {"name": name.value.decode(), "devices": count.value, "uuid": os.environ["CUDA_VISIBLE_DEVICES"]}

    def decode(self, content: bytes | memoryview) -> list[float]:
        try:
            return [float(number) for number in json.loads(bytes(content))]
        except (ValueError, TypeError) as error:
            raise RowError(f"the row is no list of numbers: {error}") from None

    def predict(self, inputs: list[list[float]]) -> list[dict[str, Any]]:
        return [{**self.about, "squares": self.squares(numbers)} for numbers in inputs]

    def squares(self, numbers: list[float]) -> list[float]:
        values = (ctypes.c_float * len(numbers))(*numbers)
        size, count = ctypes.c_size_t(ctypes.sizeof(values)), ctypes.c_uint32(len(numbers))
        self.driver.call("cuMemcpyHtoD_v2", self.memory, values, size)
        arguments = (ctypes.c_void_p * 2)(ctypes.addressof(self.memory), ctypes.addressof(count))
        blocks = (len(numbers) + THREADS - 1) // THREADS
        self.driver.call("cuLaunchKernel", self.kernel, blocks, 1, 1, THREADS, 1, 1, 0, None, arguments, None)
        self.driver.call("cuCtxSynchronize")
        self.driver.call("cuMemcpyDtoH_v2", values, self.memory, size)
        return list(values)

    def canary(self) -> bytes:
        return b"[1, 2, 3]"
