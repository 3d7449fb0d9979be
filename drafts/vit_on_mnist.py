import torch, time, sys
from kdlearn.experiments import vit_attention as v
from functools import partial
from kdlearn.experiments.common import seeded
from kdlearn.measure import *
from kdlearn.models import *
from kdlearn.data import *
import kdlearn.experiments.vit_attention as V
torch.set_num_threads(1)
seed=100; rate=float(sys.argv[1]); steps=int(sys.argv[2]); ep=int(sys.argv[3])
r=v.replace(v.RECIPE,learning_rate=rate,steps=steps,teacher_epochs=ep) if hasattr(v,"replace") else None
import dataclasses
r=dataclasses.replace(v.RECIPE,learning_rate=rate,steps=steps,teacher_epochs=ep)
data=mnist5k(train=3000,seed=seed)
V.make_vit=partial(TinyViT,image=28,patch=7,layers=3)
V.RandomAffine=lambda: RandomShift(2)
t=time.process_time(); vit=seeded(V.make_vit,seed+1000); v.train_teacher(vit,data,rate,r,seed); print("vit",accuracy(predict(vit,data.validation.images),data.validation.labels),time.process_time()-t,flush=True)
T={"vit":vit.eval()}
im=balanced_subset(data.train,300,seed=seed)
x=data.validation.images
for name in ("labels","attention copy","attention distillation","attention of other images","soft targets"):
    m=v.METHODS[name]
    t=time.process_time(); s=v.train_student(im,m,T,recipe=r,seed=seed)
    lo=v.copying(s,x,v.maps_of(vit,x)) if m.copies else predict(s,x)
    print(name,round(100*accuracy(lo,data.validation.labels),1),round(time.process_time()-t,1),flush=True)
