"""Reading compiled programs: on a text by hand, and on a real one."""

import jax
import jax.numpy as jnp

from vdm.planning import programs

TEXT = """HloModule jit_step, is_scheduled=true

%fused_slice (param_0.1: f32[100], param_1.2: f32[8]) -> bf16[8] {
  %param_0.1 = f32[100]{0} parameter(0)
  %param_1.2 = f32[8]{0} parameter(1)
  %slice.3 = f32[8]{0} slice(%param_0.1), slice={[4:12]}
  %add.4 = f32[8]{0} add(%slice.3, %param_1.2)
  ROOT %convert.5 = bf16[8]{0} convert(%add.4)
}

ENTRY %main.9 (vector.1: f32[100], x.2: f32[8]) -> (bf16[8], f32[8]) {
  %vector.1 = f32[100]{0} parameter(0)
  %x.2 = f32[8]{0} parameter(1)
  %all-reduce-start.1 = f32[8]{0} all-reduce-start(%x.2), channel_id=1
  %all-reduce-done.1 = f32[8]{0} all-reduce-done(%all-reduce-start.1)
  %loop_add_fusion.7 = bf16[8]{0} fusion(%vector.1, %x.2), kind=kLoop, \
calls=%fused_slice, metadata={op_name="jit(step)/add"}
  %gemm.8 = (f32[8]{0:T(8)S(1)}, s8[16]{0}) custom-call(%x.2), \
custom_call_target="gemm"
  %get-tuple-element.1 = f32[8]{0} get-tuple-element(%gemm.8), index=0
  %copy.11 = f32[8]{0} copy(%get-tuple-element.1)
  ROOT %tuple = (bf16[8]{0}, f32[8]{0}) tuple(%loop_add_fusion.7, %copy.11)
}
"""


def test_launches_and_what_they_touch():
  found = programs.launches(TEXT)
  assert [(x.kind, x.name, x.touched) for x in found] == [
    ('all-reduce', 'all-reduce-start', 32 + 32),
    # Eight of the hundred values are read.
    ('fusion', 'loop_add_fusion', 32 + 32 + 16),
    ('custom-call', 'gemm', 32 + 32 + 16),
    ('copy', 'copy', 32 + 32),
  ]
  assert found[0].dtypes == {'f32'}
  assert programs.collectives(TEXT)['all-reduce'] == 1


def test_a_program_of_this_machine():
  compiled = (
    jax.jit(lambda x: jnp.sin(x) * 2 + jnp.cos(x)).lower(jnp.ones(64)).compile()
  )
  (launch,) = programs.launches(compiled.as_text())
  assert (launch.kind, launch.touched) == ('fusion', 2 * 64 * 4)
  assert not any(programs.collectives(compiled.as_text()).values())
