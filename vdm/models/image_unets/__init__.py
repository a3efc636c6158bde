"""Published image U-Nets as the spatial half of a video model.

Two families have their module each: ADM of guided-diffusion (`adm`) and the
conditional U-Net of Stable Diffusion (`conditional`, with its `transformer`).
Both are one `skeleton` of residual blocks, of different `layout` and attention.
A description, the published `config.json` or flags, says which network it is;
`names` maps parameters to published names and back; `timesteps` maps log-SNR to
the timesteps that a network was trained with. `inflated` adds temporal
branches, `adapters` are of low rank on the attention, and `published` reads
weights and checks that everything fits.
"""
